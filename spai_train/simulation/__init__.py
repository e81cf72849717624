"""Simulated images: scenes, a camera, small generators, and the labelled folder drawn from them."""

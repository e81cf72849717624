"""Scoring many images: they are decoded ahead, batched across images, and scored in order, in bounded memory."""

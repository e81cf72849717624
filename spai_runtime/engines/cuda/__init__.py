"""The common part of engines on NVIDIA GPUs: streams, buffers, a kernel that crops views. CPU runs do not import it."""

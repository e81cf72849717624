"""What the engines on NVIDIA GPUs share: streams, buffers, the kernel that crops views. No run on a CPU imports it."""

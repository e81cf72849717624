"""Many images through detectors: decoded ahead, batched across images, scored in order, in bounded memory."""

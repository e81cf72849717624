"""`python -m gpu FOLDER` measures what `settings.py` reads from the environment, into a result file in FOLDER."""

import os
import sys
from pathlib import Path

import torch

from gpu.measurement import measure
from gpu.settings import Settings

if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("PyTorch sees no NVIDIA GPU")
    content = measure(Settings.of(os.environ), Path(sys.argv[1])).content
    ran = any("tiles_per_s" in row or "images_per_s" in row for row in (*content["rows"], *content["end_to_end"]))
    sys.exit(None if ran else "no contender ran")

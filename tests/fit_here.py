"""One fit of a tiny model, as every process of a launcher runs it: run by test_distributed.py, not by pytest.

Usage: fit_here.py TABLE OUTPUT
"""

import sys
from pathlib import Path

import torch
from training import fit_recipe

from spai_train.fit import fit

if __name__ == "__main__":
    torch.set_num_threads(1)
    table, output = map(Path, sys.argv[1:3])
    fit(fit_recipe(table, model__dropout=0.0, trackers=["tensorboard"]), output)

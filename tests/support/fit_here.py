"""One fit of a tiny model, as every process of a launcher runs it: run by test_distributed.py, not by pytest.

Usage: fit_here.py RECIPE OUTPUT. Goes on with the run in OUTPUT, if there is one.
"""

import sys
from pathlib import Path

import torch

from spai_train.fit import FitRecipe, fit
from spai_train.recipe import load_recipe

if __name__ == "__main__":
    torch.set_num_threads(1)
    recipe, output = map(Path, sys.argv[1:3])
    fit(load_recipe(recipe, "fit", FitRecipe), output, resume=True)

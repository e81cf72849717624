"""spai-train pretrain"""

from pathlib import Path
from typing import Annotated

import typer

from spai_runtime.cli.commands import VerboseOption, show
from spai_train.commands.edges import extra, writable
from spai_train.commands.training import (
    BatchOption,
    DataOption,
    DeviceOption,
    EpochsOption,
    PrecisionOption,
    RecipeOption,
    ResumeOption,
    RootOption,
    SeedOption,
    SetOption,
    StoreOption,
    WorkersOption,
    overrides,
)

EPILOG = (
    "Exit code: 0 trained; 2 usage, or nothing could be trained. --output holds last.pth, for `fit --pretrained` and "
    "for upstream, recipe.yaml, log.txt, metrics.jsonl, curves.png and state.pt. "
    "On several GPUs: torchrun --nproc-per-node 4 -m spai_train.cli pretrain …"
)


def run(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    recipe: RecipeOption = "spai",
    data: DataOption = None,
    root: RootOption = None,
    store: StoreOption = None,
    epochs: EpochsOption = None,
    batch_size: BatchOption = None,
    workers: WorkersOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    seed: SeedOption = None,
    assignments: SetOption = None,
    resume: ResumeOption = False,
    verbose: VerboseOption = False,  # noqa: ARG001  see execute
) -> int:
    """Pre-train the backbone by masked frequency modelling; classes are not looked at."""
    with extra():
        from spai_train.pretrain import PretrainRecipe, pretrain  # noqa: PLC0415  --help must work without torch
        from spai_train.recipe import chosen_keys, load_recipe  # noqa: PLC0415
    given = overrides(
        assignments,
        data=data,
        root=root,
        store=store,
        epochs=epochs,
        batch_size=batch_size,
        workers=workers,
        device=device,
        precision=precision,
        seed=seed,
    )
    settings = load_recipe(recipe, "pretrain", PretrainRecipe, given)
    with writable(output):
        outcome = pretrain(settings, output, resume=resume, chosen=chosen_keys(recipe, "pretrain", given))
    if not outcome.tells:
        return 0
    show(f"epoch {len(outcome.history)}: loss {outcome.history[-1]['train_loss']:.4g}")
    show(output / "last.pth")
    return 0

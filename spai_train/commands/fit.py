"""spai-train fit"""

from pathlib import Path
from typing import Annotated

import typer

from spai_runtime.cli.commands import VerboseOption, show
from spai_runtime.errors import UserError
from spai_runtime.text import visible
from spai_train.commands.edges import extra, writable
from spai_train.commands.training import (
    BatchOption,
    DataOption,
    DeviceOption,
    EpochsOption,
    PrecisionOption,
    ResumeOption,
    RootOption,
    SeedOption,
    SetOption,
    StoreOption,
    WorkersOption,
    overrides,
)
from spai_train.detectors import DEFAULT, DETECTORS, find

EPILOG = (
    "Exit code: 0 trained; 2 usage, or nothing could be trained. --output holds best.safetensors and last.safetensors "
    "for spai-export, recipe.yaml, log.txt, metrics.jsonl, curves.png and state.pt. "
    "On several GPUs: torchrun --nproc-per-node 4 -m spai_train.cli fit …"
)


def run(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    detector: Annotated[
        str | None,
        typer.Option(help=f"Detector to train: {', '.join(DETECTORS)}. Without it, the recipe says [detector]."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="A YAML file, or a recipe that ships: small (for a CPU), demo, or a detector's name. Without it, that "
            "of --detector."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="What your detector is called in detector.json and in columns. Without it, what the recipe says, or "
            "the name of the folder --output [name]."
        ),
    ] = None,
    data: DataOption = None,
    validation: Annotated[
        list[Path] | None, typer.Option(help="CSV of the validation images. Without it, the split val of --data.")
    ] = None,
    test_csv: Annotated[
        list[Path] | None,
        typer.Option(
            help="CSV that each epoch is measured on too. It chooses and stops nothing. Repeatable [data.tests]."
        ),
    ] = None,
    root: RootOption = None,
    store: StoreOption = None,
    pretrained: Annotated[
        str | None,
        typer.Option(
            help="Weights of the backbone: last.pth of pretrain, a published file, or timm. Dimensions that you do not "
            "set are those of such a file [pretrained]."
        ),
    ] = None,
    vae: Annotated[Path | None, typer.Option(help="File of Stable Diffusion v1.4's VAE, for cospy [vae].")] = None,
    stage: Annotated[
        str | None,
        typer.Option(help="Train this part alone. cospy has semantic, artifact and fusion, in this order [stage]."),
    ] = None,
    start: Annotated[Path | None, typer.Option(help="A checkpoint to go on from [start].")] = None,
    epochs: EpochsOption = None,
    batch_size: BatchOption = None,
    validation_batch_size: Annotated[
        int | None, typer.Option(min=1, help="How many views validation takes at once [validation_batch_size].")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="The highest learning rate [optimizer.learning_rate].")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many epochs without a better one [stopping.patience].")
    ] = None,
    workers: WorkersOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    seed: SeedOption = None,
    assignments: SetOption = None,
    resume: ResumeOption = False,
    verbose: VerboseOption = False,  # noqa: ARG001  see execute
) -> int:
    """Train a detector on labelled images, and say what its best epoch reached."""
    with extra():
        from spai_train.adopted import load_fit  # noqa: PLC0415  --help must work without torch
        from spai_train.fit import fit  # noqa: PLC0415
        from spai_train.recipe import shipped  # noqa: PLC0415
        from spai_train.training.start import training_of  # noqa: PLC0415
    given = overrides(
        assignments,
        detector=detector,
        name=name,
        data=data,
        validation=validation,
        test_csv=test_csv,
        root=root,
        store=store,
        pretrained=pretrained,
        vae=vae,
        stage=stage,
        start=start,
        epochs=epochs,
        batch_size=batch_size,
        validation_batch_size=validation_batch_size,
        learning_rate=learning_rate,
        patience=patience,
        workers=workers,
        device=device,
        precision=precision,
        seed=seed,
    )
    if detector is not None:
        training_of(find(detector))  # one that cannot be trained has no recipe either, which would be said instead
        if recipe is None and detector not in shipped():
            raise UserError(
                f"there is no recipe for {detector}: give one with --recipe, or fit its linear layer alone with "
                "`spai-train probe`"
            )
    defaults = {"name": visible(output.resolve().name)}
    adopted = load_fit(recipe or detector or DEFAULT, given, defaults)
    with writable(output):
        outcome = fit(adopted.recipe, output, resume=resume, chosen=adopted.chosen, notes=adopted.notes)
    if not outcome.tells:
        return 0
    best = ", ".join(f"{name} {value:.4g}" for name, value in outcome.best.items() if name.startswith("val_"))
    show(f"best epoch {outcome.best['epoch']:g} of {len(outcome.history)}: {best}")
    show(output / "best.safetensors")
    return 0

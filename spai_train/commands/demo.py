"""spai-train demo"""

from pathlib import Path
from typing import Annotated

import typer

from spai_runtime.commands import VerboseOption, say
from spai_train.commands.edges import EPILOG, extra, writable

__all__ = ["EPILOG", "run"]


def run(
    output: Annotated[Path, typer.Option(help="Folder for demo.safetensors, report.json, report.md and samples/.")],
    recipe: Annotated[Path | None, typer.Option(help="YAML. Left out: the demo detector's own.")] = None,
    verbose: VerboseOption = False,  # noqa: ARG001  see execute
) -> int:
    """Train the demo detector from a seed, and measure it beside trivial baselines and a random backbone."""
    with extra():
        from spai_train import demo as recipes  # noqa: PLC0415  --help must work without torch
        from spai_train import report  # noqa: PLC0415
        from spai_train.recipe import DEMO, load_recipe  # noqa: PLC0415
    settings = load_recipe(recipe or DEMO)
    with writable(output):
        outcome = recipes.run_demo(settings, output, say)
        report.write_report(output, outcome)
    typer.echo(report.as_markdown(outcome))
    return 0

"""spai-train compare"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from spai_runtime.cli.commands import VerboseOption, show
from spai_train.commands.edges import extra, writable

__all__ = ["EPILOG", "run"]

EPILOG = (
    "Exit code: 0 compared; 2 a folder cannot be read, or is of other images. Columns of --output: detector, method, "
    "threshold, perturbation, source, metric, value, low, high; `mean` is the mean of the sources."
)


class Metric(StrEnum):
    """The metric that the table shows; --output has all metrics."""

    AUC = "auc"
    AVERAGE_PRECISION = "average_precision"
    ACCURACY = "accuracy"
    BALANCED_ACCURACY = "balanced_accuracy"
    EQUAL_ERROR_RATE = "equal_error_rate"
    TPR_AT_1_PERCENT_FPR = "tpr_at_1_percent_fpr"
    TPR_AT_5_PERCENT_FPR = "tpr_at_5_percent_fpr"
    CALIBRATION_ERROR = "calibration_error"


def run(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders that `evaluate` wrote on the same images.")
    ],
    metric: Annotated[Metric, typer.Option(help="Metric of the table.")] = Metric.AUC,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="CSV to write, with all metrics under all perturbations.")
    ] = None,
    verbose: VerboseOption = False,  # noqa: ARG001  see execute
) -> int:
    """Put what was measured of several detectors into one table, with 95% intervals."""
    with extra("evaluate"):
        from spai_train.evaluation.comparison import Comparison  # noqa: PLC0415  --help must work without numpy
        from spai_train.evaluation.summary import show_comparison  # noqa: PLC0415
    comparison = Comparison.of(folders)
    if output is not None:
        with writable(output):
            comparison.write(output)
    show_comparison(comparison, metric)
    if output is not None:
        show(output)
    return 0

"""The demo detector's report: report.json for programs, report.md for readers."""

import importlib.metadata
import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spai_train.demo import NOTICE, Outcome
from spai_train.sets import FORMATS, GROUPS

LIBRARIES = ("numpy", "pillow", "scikit-learn", "timm", "torch")


def write_report(folder: Path, outcome: Outcome) -> None:
    """Writes `report.json` and `report.md`."""
    (folder / "report.json").write_text(json.dumps(as_json(outcome), indent=2) + "\n")
    (folder / "report.md").write_text(as_markdown(outcome))


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Every number, with its interval; nothing about the machine but its libraries' versions."""
    recipe = outcome.recipe
    return {
        "notice": NOTICE,
        "seed": recipe.seed,
        "threshold": outcome.threshold,
        "images": {
            **asdict(recipe.count),
            "note": "train and test are counts of each class, and each image is a PNG and a JPEG",
        },
        "generators": {
            "seen": [spec.name for spec in recipe.seen],
            "unseen": [spec.name for spec in recipe.unseen],
        },
        "jpeg_quality": recipe.finish.quality,
        "auc": {
            name: {f"{group}, {form}": asdict(interval) for (group, form), interval in aucs.items()}
            for name, aucs in outcome.aucs.items()
        },
        "false_positive_rate": {name: asdict(interval) for name, interval in outcome.false_positives.items()},
        "true_positive_rate": {
            f"{group}, {form}": asdict(interval) for (group, form), interval in outcome.true_positives.items()
        },
        "sample_scores": outcome.samples,
        "seconds": outcome.seconds,
        "versions": {"python": platform.python_version()}
        | {library: importlib.metadata.version(library) for library in LIBRARIES},
    }


def as_markdown(outcome: Outcome) -> str:
    """The AUC table, the rates at the threshold, and what they are worth."""
    return (
        "\n\n".join((f"# {NOTICE[0].upper()}{NOTICE[1:]}", _setting(outcome), _auc_table(outcome), _rates(outcome)))
        + "\n"
    )


def _setting(outcome: Outcome) -> str:
    recipe = outcome.recipe
    low, high = recipe.finish.quality
    return (
        f"Seed {recipe.seed}. Trained on {recipe.count.train} real and {recipe.count.train} generated images, tested "
        f"on {recipe.count.test} of each kind, each as PNG and as JPEG of quality {low} to {high}. Seen generators: "
        f"{', '.join(spec.name for spec in recipe.seen)}. Unseen, in the test only: "
        f"{', '.join(spec.name for spec in recipe.unseen)}. Brackets hold bootstrap 95% intervals."
    )


def _auc_table(outcome: Outcome) -> str:
    keys = [(group, form) for form in FORMATS for group in GROUPS]
    rows = [["AUC", *(f"{form}, {group}" for group, form in keys)], ["---"] * (1 + len(keys))]
    rows += [[name, *(str(aucs[key]) for key in keys)] for name, aucs in outcome.aucs.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _rates(outcome: Outcome) -> str:
    false = [f"- {name} real images: {rate}" for name, rate in outcome.false_positives.items()]
    true = [f"- {form}, {group} generators: {rate}" for (group, form), rate in outcome.true_positives.items()]
    return "\n".join(
        (
            f"At the threshold of {outcome.threshold:.4f}, called generated:",
            "",
            *false,
            *true,
        )
    )

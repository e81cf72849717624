"""One result file of a device, made of what the steps wrote, in whatever order and on however many visits."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import json_files
from goals import PUBLISHED, Result

from gpu.goals import summary
from gpu.offline.runner import STATE
from gpu.offline.steps import STEPS

NEEDED = ("torch", "onnx", "end-to-end")  # without one of these it is not complete
OWN = ("backends", "parts", "limit")  # settings that differ from step to step


def collect(outputs: Sequence[Path], folder: Path) -> list[Path]:
    """:param outputs: of `run`; what a later one has of a step takes the place of what an earlier one has
    :param folder: gets `gpu-<device>.json` of each device, of the published model alone
    :returns: these files
    """
    steps = {step.name: output / step.name for output in outputs for step in STEPS if (output / step.name).is_dir()}
    states = {name: json_files.read(step / STATE) for name, step in steps.items() if (step / STATE).exists()}
    written = []
    for name, parts in _by_device(steps).items():
        content = {**joined(parts), "steps": states}
        written.append(folder / name)
        json_files.write(written[-1], {**content, "goals": summary(content)})
    return written


def joined(parts: Mapping[str, Result]) -> Result:
    """:param parts: results by step
    :returns: the facts of the first step, and the rows of all, each with its step
    """
    ordered = {step.name: parts[step.name] for step in STEPS if step.name in parts}
    first = next(iter(ordered.values()))
    settings = {name: value for name, value in first["settings"].items() if name not in OWN}
    complete = all(part["complete"] for part in ordered.values()) and all(step in ordered for step in NEEDED)
    rows = {kind: [{**row, "step": step} for step, part in ordered.items() for row in part[kind]] for kind in ROWS}
    return {**first, "complete": complete, "settings": settings, **rows}


ROWS = ("rows", "end_to_end")


def _by_device(steps: Mapping[str, Path]) -> dict[str, dict[str, Result]]:
    """Results by the file's name and by step."""
    found: dict[str, dict[str, Result]] = {}
    for step, folder in steps.items():
        for path in sorted(folder.glob("gpu-*.json")):
            content = json_files.read(path)
            if content["model"] == PUBLISHED:
                found.setdefault(path.name, {})[step] = content
    return found

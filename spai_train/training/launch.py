"""Sets accelerate up as a recipe says: device, precision, processes, trackers."""

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from spai_runtime.errors import UserError
from spai_train.training.settings import TrainingSettings

_ACCELERATE = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}  # its names of precisions


class LaunchError(UserError):
    """A device, precision or tracker that is not available, in one sentence."""


def launch(settings: TrainingSettings, output: Path, *, all_train: bool) -> Accelerator:
    """:param output: the folder that trackers write their files to
    :param all_train: whether every parameter gets a gradient; DDP must look for those that do not
    :raises LaunchError: the device, precision or a tracker is missing here
    """
    cpu = settings.device == "cpu" or not torch.cuda.is_available()
    if cpu and settings.device == "cuda":
        raise LaunchError("there is no GPU that torch can use: set device=cpu, or install torch with CUDA")
    AcceleratorState._reset_state(reset_partial_state=True)  # one process may train twice, in two ways
    return Accelerator(
        cpu=cpu,
        mixed_precision=_ACCELERATE[resolve_precision(settings.precision, cpu=cpu)],
        gradient_accumulation_steps=settings.accumulate,
        log_with=_checked(settings.trackers) or None,
        project_dir=output,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=not all_train)],
    )


def resolve_precision(precision: str, *, cpu: bool) -> str:
    """`auto` → what the device computes best in and safely.

    :raises LaunchError: fp16 on a CPU, whose kernels and gradient scaling it lacks
    """
    if precision == "fp16" and cpu:
        raise LaunchError("fp16 trains on a GPU alone: set precision=bf16 or fp32")
    if precision != "auto":
        return precision
    return "bf16" if not cpu and torch.cuda.is_bf16_supported() else "fp32"


def autocast_dtype(accelerator: Accelerator) -> torch.dtype:
    """The type that products are computed in."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision, torch.float32)


def _checked(trackers: tuple[str, ...]) -> list[Any]:
    """Refuses a tracker that is not installed, which accelerate would silently leave out."""
    available = {str(tracker) for tracker in get_available_trackers()}
    for tracker in trackers:
        if tracker not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(map(str, LOGGER_TYPE_TO_CLASS)))
            raise LaunchError(f"there is no tracker {tracker}; trackers are: {known}")
        if tracker not in available:
            raise LaunchError(f"the tracker {tracker} is not installed: pip install {tracker}, or set trackers=[]")
    return list(trackers)

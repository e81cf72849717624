"""The learning rate of every step: a warm-up, then a falling curve. All four curves are ones that upstream uses."""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

import torch
from msgspec import Meta

Curve = Literal["cosine", "linear", "step", "multistep"]
Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
LINEAR_END = 0.01  # of the peak (upstream `lr_scheduler.py`, `lr_min_rate`)


@dataclass(frozen=True)
class ScheduleSettings:
    """A recipe's `schedule`: a linear warm-up, then a curve; the defaults are SPAI's (upstream `configs/spai.yaml`).

    :param epochs: All images are learned from so many times.
    :param warmup_epochs: The rate rises during so many epochs; a fraction is a part of an epoch.
    :param warmup_rate: The first step has this rate, in all layers.
    :param final_rate: The cosine ends in this rate, in all layers; the other curves do not read it.
    :param name: The rate falls by this curve: `cosine`; `linear`, which ends in a hundredth of the peak; `step`, every
        `decay_epochs`; or `multistep`, at each of `milestones`. All but `linear` count from the first step of the
        training, not of the curve.
    :param decay_epochs: `step` lowers the rate every so many epochs. Upstream: LR_SCHEDULER.DECAY_EPOCHS.
    :param decay_rate: `step` and `multistep` multiply the rate by this. Upstream: DECAY_RATE, GAMMA.
    :param milestones: `multistep` lowers the rate at these epochs, which are in order. Upstream: MULTISTEPS.
    :param base_batch_size: The learning rate, `warmup_rate` and `final_rate` are given for steps of so many images, and
        are scaled to `batch_size` in proportion; null takes them as they are.
    :raises ValueError: milestones that are missing, out of order, or before the end of the warm-up
    """

    epochs: Count = 35
    warmup_epochs: NotNegative = 5.0
    warmup_rate: NotNegative = 2.5e-7
    final_rate: NotNegative = 2.5e-7
    name: Curve = "cosine"
    decay_epochs: Positive = 30.0
    decay_rate: Positive = 0.1
    milestones: tuple[Positive, ...] = ()
    base_batch_size: Annotated[int, Meta(ge=1)] | None = None

    def __post_init__(self) -> None:
        if self.name == "multistep" and not self.milestones:
            raise ValueError("multistep needs milestones: name the epochs at which the rate falls, e.g. [20, 30]")
        if list(self.milestones) != sorted(self.milestones) or min(self.milestones, default=math.inf) < (
            self.warmup_epochs
        ):
            raise ValueError(
                f"milestones are {list(self.milestones)}; put them in order, after {self.warmup_epochs:g} warmup_epochs"
            )

    def factor(self, batch_size: int) -> float:
        """The factor of the learning rates for steps of so many images (the linear rule of MFM's main)."""
        return batch_size / self.base_batch_size if self.base_batch_size else 1.0

    def scaled(self, batch_size: int) -> Self:
        """The schedule with its rates scaled to steps of so many images."""
        factor = self.factor(batch_size)
        return replace(
            self,
            warmup_rate=self.warmup_rate * factor,
            final_rate=self.final_rate * factor,
            base_batch_size=None,
        )


@dataclass(frozen=True)
class PretrainingSchedule(ScheduleSettings):
    """The `schedule` of masked-frequency pre-training; the defaults are MFM's (see `PretrainingOptimizer`).

    MFM's published run has steps of 16 GPUs × 128 images (`docs/PRETRAIN.md`).
    """

    epochs: Count = 300
    warmup_epochs: NotNegative = 20.0
    final_rate: NotNegative = 2.5e-6
    base_batch_size: Annotated[int, Meta(ge=1)] | None = 512


@dataclass(frozen=True)
class Schedule:
    """The rates of every step; it holds no state, so a run resumes by setting those of its next step.

    :param settings: settings whose rates are not scaled any more
    :param steps_per_epoch: steps of the optimizer, for which an accumulated batch is one step
    """

    settings: ScheduleSettings
    steps_per_epoch: int

    @property
    def total_steps(self) -> int:
        return self.settings.epochs * self.steps_per_epoch

    @property
    def warmup_steps(self) -> int:
        return int(self.settings.warmup_epochs * self.steps_per_epoch)

    def set_rates(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Gives every group its rate for optimizer step `step`, counted from 0, on the way to the group's `peak`."""
        for group in optimizer.param_groups:
            group["lr"] = self.rate(step, group["peak"])

    def rate(self, step: int, peak: float) -> float:
        """The learning rate of an optimizer step, as upstream gets it from its schedulers.

        Upstream moves its scheduler after each step, to that step's own number, so a step has the rate of the number
        before.

        :param step: the step's number, from 0
        :param peak: the rate that the warm-up rises to
        """
        time = max(step - 1, 0)
        if time < self.warmup_steps:
            return self.settings.warmup_rate + (peak - self.settings.warmup_rate) * time / self.warmup_steps
        return _CURVES[self.settings.name](self, time, peak)


def _cosine(schedule: Schedule, time: int, peak: float) -> float:
    """The cosine, which starts at step 0: after the warm-up it begins below the peak, 5% if that took a seventh."""
    final, total = schedule.settings.final_rate, schedule.total_steps
    return final + (peak - final) * (1 + math.cos(math.pi * time / total)) / 2 if time < total else final


def _linear(schedule: Schedule, time: int, peak: float) -> float:
    steps = max(schedule.total_steps - schedule.warmup_steps, 1)
    return peak * (1 - (1 - LINEAR_END) * min((time - schedule.warmup_steps) / steps, 1))


def _step(schedule: Schedule, time: int, peak: float) -> float:
    """The rate of timm's StepLRScheduler in 0.4.12, as upstream pins it; later ones count from the warm-up's end."""
    every = max(int(schedule.settings.decay_epochs * schedule.steps_per_epoch), 1)
    return float(peak * schedule.settings.decay_rate ** (time // every))


def _multistep(schedule: Schedule, time: int, peak: float) -> float:
    milestones = [epoch * schedule.steps_per_epoch for epoch in schedule.settings.milestones]
    return float(peak * schedule.settings.decay_rate ** bisect_right(milestones, time))


_CURVES: Mapping[Curve, Callable[[Schedule, int, float], float]] = {
    "cosine": _cosine,
    "linear": _linear,
    "step": _step,
    "multistep": _multistep,
}

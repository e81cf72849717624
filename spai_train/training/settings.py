"""The settings of every training: the recipe keys that `pretrain` and `fit` share."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, Self

from msgspec import Meta

from spai_train.data.rows import DataSettings
from spai_train.training.optimizer import OptimizerSettings
from spai_train.training.schedule import ScheduleSettings

Count = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[int, Meta(ge=0)]


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The keys that `pretrain` and `fit` share.

    :param seed: Order, augmentation, first weights and dropout follow from this seed.
    :param data: These keys say where images come from.
    :param batch_size: A step of the optimizer has so many images, over all processes and micro-batches.
    :param accumulate: A step is computed in so many micro-batches, whose gradients are summed, which takes less
        memory.
    :param precision: Products are computed in this precision; `auto` is bf16 on a GPU that has it and fp32 elsewhere,
        and fp16 needs a GPU.
    :param device: The training runs here; `auto` is the GPU where there is one. Several processes take one GPU each.
    :param compile: If this is true, torch.compile fuses the backbone.
    :param checkpointing: If this is true, a backbone that trains keeps no activations and computes them twice.
    :param save_every: The state is saved every so many steps; null saves it after every epoch.
    :param trackers: These trackers of accelerate are written: tensorboard, wandb, mlflow, trackio and others.
    :param log_every: The trackers get an entry every so many steps.
    :param optimizer: These keys set the optimizer.
    :param schedule: These keys set the learning rate of each step.
    """

    seed: NotNegative = 0
    data: DataSettings = field(default_factory=DataSettings)
    batch_size: Count = 72
    accumulate: Count = 1
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = False
    checkpointing: bool = False
    save_every: Count | None = None
    trackers: tuple[str, ...] = ("tensorboard",)
    log_every: Count = 10
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)

    @property
    def scaled(self) -> Self:
        """The settings with learning rates scaled to steps of `batch_size` images."""
        rate = self.optimizer.learning_rate * self.schedule.factor(self.batch_size)
        optimizer, schedule = replace(self.optimizer, learning_rate=rate), self.schedule.scaled(self.batch_size)
        return replace(self, optimizer=optimizer, schedule=schedule)

    @property
    def rates(self) -> str:
        """The learning rates of steps of `batch_size` images, in words."""
        peak, schedule = self.scaled.optimizer.learning_rate, self.scaled.schedule
        last = f", {schedule.final_rate:.4g} in the last" if schedule.name == "cosine" else ""
        given = f", scaled from {self.schedule.base_batch_size}" if self.schedule.base_batch_size else ""
        first = f"{schedule.warmup_rate:.4g} in the first, " if schedule.warmup_epochs else ""
        return (
            f"learning rates of steps of {self.batch_size} images{given}: {first}"
            f"{peak:.4g} at the peak{last} ({self.optimizer.name}, {schedule.name})"
        )


# What a resumed run may change: nothing here moves a weight.
RESUMABLE = frozenset(
    {
        "data.workers",
        "data.prefetch",
        "data.root",
        "data.store",
        "data.tests",
        "data.test_split",
        "save_every",
        "trackers",
        "log_every",
        "keep",
        "name",
        "validation_batch_size",
    }
)

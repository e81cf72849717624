"""What every training is told: the recipe keys that `pretrain` and `fit` share."""

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
    """:param batch_size: images of one step of the optimizer, over all processes and micro-batches
    :param accumulate: micro-batches of a step, whose gradients are summed: less memory, the same step
    :param precision: of products: `auto` is bf16 on a GPU that has it, else fp32; fp16 needs a GPU
    :param device: `auto` is the GPU if there is one; several processes take one GPU each
    :param compile: whether torch.compile fuses the backbone
    :param checkpointing: whether a backbone that trains keeps no activations and computes them twice
    :param save_every: steps between saved states; None saves after every epoch
    :param trackers: of accelerate: tensorboard, wandb, mlflow, trackio, …
    :param log_every: steps between entries of the trackers
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
        """With the learning rates that steps of `batch_size` images have."""
        rate = self.optimizer.learning_rate * self.schedule.factor(self.batch_size)
        optimizer, schedule = replace(self.optimizer, learning_rate=rate), self.schedule.scaled(self.batch_size)
        return replace(self, optimizer=optimizer, schedule=schedule)

    @property
    def rates(self) -> str:
        """In words, the learning rates that steps of `batch_size` images have."""
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
        "validation_batch_size",
    }
)

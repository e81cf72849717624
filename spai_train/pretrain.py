"""Masked-frequency pre-training: images without labels → weights of a backbone, for `fit` and for upstream."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
from accelerate import Accelerator
from msgspec import Meta
from torch import Tensor, nn

from spai_train.data.augment import Augment
from spai_train.data.augmentation import PRETRAIN, Augmentation
from spai_train.data.dataset import Batch, TrainingImages
from spai_train.data.order import Plan
from spai_train.data.rows import Labelled, read_unlabelled
from spai_train.detectors.spai.config import SPAIConfig
from spai_train.models.mfm import FrequencyLoss, MaskedFrequencyModel, save_pretrained
from spai_train.seeds import Use, seed_of
from spai_train.training.batch import begin, following
from spai_train.training.launch import launch
from spai_train.training.loop import Loop
from spai_train.training.optimizer import TOKENS, PretrainingOptimizer, build_optimizer
from spai_train.training.run import Metrics, RunFolder
from spai_train.training.schedule import PretrainingSchedule
from spai_train.training.settings import TrainingSettings
from spai_train.training.start import whiten
from spai_train.training.task import OnEpoch, Outcome


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe(TrainingSettings):
    """The section `pretrain` of a recipe; the defaults are MFM's for ViT-B/16 (its `mfm_pretrain__vit_base` config).

    :param model: Only the dimensions of the backbone, `tile_size` and `mask_radius` are read of these.
    :param initial: Weights are drawn in this way: `upstream` as published, `whitened` with a patch embedding that
        whitens patches of the images, for trainings too short to learn one.
    :param low_share: This share of the images keeps its low frequencies, and the others keep their high ones.
    :param augmentation: These keys say how a view is drawn from an image.
    :param loss: These keys say how far the restored image lies from the original.
    """

    batch_size: Annotated[int, Meta(ge=1)] = 2048  # MFM's docs/PRETRAIN.md: 16 GPUs × 128
    model: SPAIConfig = field(default_factory=SPAIConfig)
    initial: Literal["upstream", "whitened"] = "upstream"
    low_share: Annotated[float, Meta(ge=0, le=1)] = 0.5
    augmentation: Augmentation = PRETRAIN
    loss: FrequencyLoss = field(default_factory=FrequencyLoss)
    optimizer: PretrainingOptimizer = field(default_factory=PretrainingOptimizer)
    schedule: PretrainingSchedule = field(default_factory=PretrainingSchedule)

    def __post_init__(self) -> None:
        if self.model.backbone != "mfm":
            raise ValueError(f"masked frequencies are restored by the backbone mfm alone, not by {self.model.backbone}")


def pretrain(
    recipe: PretrainRecipe,
    output: Path,
    *,
    resume: bool = False,
    on_epoch: OnEpoch | None = None,
    chosen: Collection[str] | None = None,
) -> Outcome:
    """Trains by a recipe into a run's folder: last.pth, which `fit` and upstream read, and what `RunFolder` lists.

    :param resume: goes on from the state in `output`, if there is one
    :param chosen: see `fit`
    :raises UserError: tables, images, devices or sizes cannot be used; it is raised before the first step
    """
    accelerator = launch(recipe, output, all_train=True)
    folder = RunFolder(output, writes=accelerator.is_main_process)
    notes: tuple[str, ...] = ()
    recipe, follows = begin("pretrain", recipe, folder, accelerator.num_processes, chosen, resume=resume)
    data = read_unlabelled(recipe.data)
    if follows:
        recipe, notes = following(recipe, len(data.training), accelerator.num_processes)
    plan = Plan(
        len(data.training), recipe.batch_size, recipe.schedule.epochs, recipe.accumulate, accelerator.num_processes
    )
    task = PretrainTask(recipe, data, folder, accelerator)
    depth = recipe.model.depth
    optimizer = build_optimizer(task.model, recipe.scaled.optimizer, depth, prefix="encoder.", undecayed=TOKENS)
    folder.begin("pretrain", recipe)
    folder.log(f"{data} on {accelerator.device}, {accelerator.num_processes} process(es)")
    for line in (*notes, recipe.rates):
        folder.log(line)
    return Loop(task, recipe, plan, optimizer, folder, accelerator).run(resume=resume, on_epoch=on_epoch)


class PretrainTask:
    """Masked frequency modelling, as `loop.Task`."""

    def __init__(self, recipe: PretrainRecipe, data: Labelled, folder: RunFolder, accelerator: Accelerator) -> None:
        self.recipe, self.folder = recipe, folder
        augment = Augment(recipe.augmentation, recipe.model.tile_size)
        self.images = TrainingImages(data.training, data.store, augment, 1, recipe.seed)
        seed = seed_of(recipe.seed, Use.INITIAL)
        torch.manual_seed(seed)
        self.model = MaskedFrequencyModel(recipe.model, recipe.loss)
        if recipe.initial == "whitened":
            whiten(self.model, self.model.encoder, self.images, seed)
        self.model.to(accelerator.device)
        self.model.encoder.checkpointing = recipe.checkpointing
        if recipe.compile:
            self.model.encoder.compile()

    def loss(self, model: nn.Module, batch: Batch, seed: int) -> Tensor:  # noqa: ARG002  torch's generator draws
        low = torch.rand(len(batch.views)) < self.recipe.low_share
        loss: Tensor = model(batch.views[:, 0], low.to(batch.views.device))
        return loss

    def validate(self) -> Metrics:
        return {}

    def save(self, name: str) -> None:
        self.folder.replace(f"{name}.pth", lambda path: save_pretrained(path, self.model))

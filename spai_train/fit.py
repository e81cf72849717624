"""Fine-tuning: a backbone, perhaps pre-trained, and what is learned behind it → a detector's checkpoint."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from accelerate import Accelerator
from msgspec import Meta
from torch import Tensor, nn

from spai_runtime.errors import UserError
from spai_runtime.manifest import Positive
from spai_train.checkpoint import Card, load_checkpoint, save_checkpoint
from spai_train.data.augment import Augment
from spai_train.data.augmentation import FINETUNE, Augmentation
from spai_train.data.dataset import Batch, TrainingImages
from spai_train.data.order import Plan
from spai_train.data.rows import Labelled, check_named, read_labelled
from spai_train.data.table import Row, TableError
from spai_train.detectors import DEFAULT, find
from spai_train.detectors.spec import DetectorModel, DetectorSpec, Initial
from spai_train.memory import BatchLimit
from spai_train.sections import RecipeError
from spai_train.seeds import Use, seed_of
from spai_train.training.batch import begin, following
from spai_train.training.launch import launch
from spai_train.training.loop import Loop
from spai_train.training.losses import Objective, objective
from spai_train.training.optimizer import build_optimizer
from spai_train.training.run import Metrics, RunFolder
from spai_train.training.settings import TrainingSettings
from spai_train.training.start import draw_model, prepare, stage_of, training_of
from spai_train.training.stopping import EarlyStopping, StoppingSettings
from spai_train.training.task import OnEpoch, Outcome
from spai_train.training.validate import validate

THRESHOLD_SOURCE = "not calibrated; `spai-train evaluate --calibrate` finds one"


@dataclass(frozen=True, kw_only=True)
class FitRecipe(TrainingSettings):
    """The section `fit` of a recipe; the defaults are the published setting (upstream `configs/spai.yaml`, README).

    :param detector: This detector is trained, whose dimensions are the keys of `model`.
    :param name: The detector gets this name; left out, `spai-train fit` takes that of the run's folder.
    :param notice: A user must read this one line before trusting a score; it may be empty.
    :param positive: The detector says this word of images like those of class 1: `ai`, or what else they are.
    :param model: These keys are the dimensions of the detector.
    :param stage: Only this part of the detector is trained: of CO-SPY `semantic`, `artifact`, `fusion`.
    :param pretrained: The backbone starts from the weights in this file, or `timm` from those on its hub.
    :param vae: CO-SPY's VAE has the weights in this file, of Stable Diffusion v1.4.
    :param start: The training goes on from this checkpoint of a whole detector; other weights are then not asked for.
    :param initial: Weights that are not loaded are drawn as published (`upstream`), from N(0, 1/fan_in) behind the
        backbone (`fan_in`), or so and with a patch embedding that whitens patches of the images (`whitened`).
    :param freeze: The backbone stays as it is if this is true; null freezes one that is loaded, as upstream does.
    :param views: So many augmented views of an image are drawn, which the head sees as its tiles.
    :param augmentation: These keys say how views are drawn from an image.
    :param beside: This draws the views of CO-SPY's artifact branch in its stage `fusion`; null is `augmentation` too.
    :param objective: These keys say what a step minimises.
    :param stopping: These keys say which epoch is the best, and when the training ends early.
    :param validation_batch_size: Validation gives the encoder so many views at once; null is 4 on a CPU and 64 on a
        GPU. It is halved, again and again, where memory runs out.
    :param keep: `best` keeps the checkpoints of the best and the last epoch, `all` those of every epoch.
    """

    detector: str = DEFAULT
    name: str = ""
    notice: str = ""
    positive: Positive = "ai"
    model: Any = None  # the published dimensions
    stage: str | None = None
    pretrained: str | None = None
    vae: str | None = None
    start: str | None = None
    initial: Initial = "upstream"
    freeze: bool | None = None
    views: Annotated[int, Meta(ge=1)] = 4
    augmentation: Augmentation = FINETUNE
    beside: Augmentation | None = None
    objective: Objective = field(default_factory=Objective)
    stopping: StoppingSettings = field(default_factory=StoppingSettings)
    validation_batch_size: Annotated[int, Meta(ge=1)] | None = None
    keep: Literal["best", "all"] = "best"

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.detector)
        if self.model is None:
            object.__setattr__(self, "model", find(self.detector).config())

    @classmethod
    def typed(cls, values: Mapping[str, Any]) -> type:
        """See `recipe.Varying`: `model` has the keys of the detector that is named.

        :raises UserError: there is no detector of that name
        """
        name = values.get("detector", DEFAULT)
        return _typed(find(name)) if isinstance(name, str) else cls

    @property
    def frozen(self) -> bool:
        loaded = self.pretrained is not None or self.start is not None
        return loaded if self.freeze is None else self.freeze


@cache
def _typed(spec: DetectorSpec) -> type:
    """A FitRecipe whose `model` has the dimensions of that detector, for msgspec to read and to check."""
    model = ("model", spec.config, field(default_factory=spec.config))
    return make_dataclass("FitRecipe", [model], bases=(FitRecipe,), frozen=True, kw_only=True)


def fit(
    recipe: FitRecipe,
    output: Path,
    *,
    resume: bool = False,
    on_epoch: OnEpoch | None = None,
    chosen: Collection[str] | None = None,
    notes: Sequence[str] = (),
) -> Outcome:
    """Trains by a recipe into a run's folder: best.safetensors, last.safetensors and what `RunFolder` lists.

    :param resume: goes on from the state in `output`, if there is one, and ends with the weights that a run left
        alone ends with
    :param chosen: keys of the recipe that somebody has chosen, None for all: `batch_size` follows the data where it
        is not among them
    :param notes: lines about the recipe for the log
    :raises UserError: tables, images, devices or sizes cannot be used; it is raised before the first step
    """
    check(recipe)
    training = training_of(find(recipe.detector))
    every = recipe.frozen or (recipe.start is None and training.all_train(recipe.model))
    accelerator = launch(recipe, output, all_train=every and not training.skips)
    folder = RunFolder(output, writes=accelerator.is_main_process)
    recipe, follows = begin("fit", recipe, folder, accelerator.num_processes, chosen, resume=resume)
    check_named(recipe.data)
    read = cache(partial(read_labelled, recipe.data))
    images, model = set_up(recipe, accelerator, read)
    data = read()
    if follows:
        recipe, said = following(recipe, len(data.training), accelerator.num_processes)
        notes = *notes, *said
    plan = Plan(
        len(data.training), recipe.batch_size, recipe.schedule.epochs, recipe.accumulate, accelerator.num_processes
    )
    depth = len(getattr(model.get_submodule(training.backbone), "blocks", ()))
    optimizer = build_optimizer(model, recipe.scaled.optimizer, depth, prefix=f"{training.backbone}.")
    folder.begin("fit", recipe)
    folder.log(f"{data} on {accelerator.device}, {accelerator.num_processes} process(es)")
    for line in (*notes, recipe.rates):
        folder.log(line)
    task, stopping = FitTask(recipe, data, images(), model, folder, accelerator), EarlyStopping(recipe.stopping)
    loop = Loop(task, recipe, plan, optimizer, folder, accelerator, stopping, keep_all=recipe.keep == "all")
    return loop.run(resume=resume, on_epoch=on_epoch)


def check(recipe: FitRecipe) -> None:
    """Refuses keys that do not go together, as far as no file, device or model is needed to tell.

    :raises UserError: keys do not go together
    """
    spec = find(recipe.detector)
    stage = stage_of(spec, recipe.stage)
    if recipe.vae is not None and not training_of(spec).vae:
        raise UserError(f"{spec.title} has no VAE: leave vae out")
    if recipe.beside is not None and not (stage and stage.beside):
        raise RecipeError("nothing draws views beside others here: leave beside out, or set stage")


def set_up(
    recipe: FitRecipe, accelerator: Accelerator, read: Callable[[], Labelled]
) -> tuple[Callable[[], TrainingImages], DetectorModel]:
    """The images of a fit and its model, on the device; images are read where the first weights follow from them.

    :param read: reads the tables
    :raises UserError: weights do not fit, or the detector has no use for a setting
    """
    spec = find(recipe.detector)
    stage, training = stage_of(spec, recipe.stage), training_of(spec)
    checkpoint = None if recipe.start is None else load_checkpoint(recipe.start, recipe.detector)
    config = checkpoint.config if checkpoint else recipe.model
    augment = Augment(recipe.augmentation, (stage.side if stage else spec.side)(config))
    second = stage.beside(config) if stage and stage.beside else None
    beside = None if second is None else Augment(recipe.beside or recipe.augmentation, second)

    def images() -> TrainingImages:
        data = read()
        return TrainingImages(data.training, data.store, augment, recipe.views, recipe.seed, beside)

    given = recipe.seed, recipe.initial, recipe.pretrained, images, recipe.vae
    model = checkpoint.model() if checkpoint else draw_model(spec, config, *given)
    on_cpu = accelerator.device.type == "cpu"
    prepare(model, training, frozen=recipe.frozen, checkpointing=recipe.checkpointing, chunked=on_cpu)
    if stage:
        torch.manual_seed(seed_of(recipe.seed, Use.INITIAL))
        stage.begin(model)
    if recipe.compile:
        model.get_submodule(training.backbone).compile()
    return images, model.to(accelerator.device)


class FitTask:
    """A detector on labelled images, as `loop.Task`."""

    def __init__(
        self,
        recipe: FitRecipe,
        data: Labelled,
        images: TrainingImages,
        model: DetectorModel,
        folder: RunFolder,
        accelerator: Accelerator,
    ) -> None:
        self.recipe, self.data, self.folder, self.accelerator = recipe, data, folder, accelerator
        self.images, self.model = images, model
        self._objective = objective(recipe.objective, recipe.batch_size)
        self._limit = BatchLimit(recipe.validation_batch_size)  # which an epoch that ran out of memory hands on

    def loss(self, model: nn.Module, batch: Batch, seed: int) -> Tensor:
        views = (batch.views,) if batch.beside is None else (batch.views, batch.beside)
        verdict = model(*views, detached=self.recipe.objective.detached)
        return self._objective(verdict.logit, verdict.embedding, batch.labels, seed) + self.model.penalty()

    def validate(self) -> Metrics:
        metrics = self._measured("val", self.data.validation)
        if (watched := self.recipe.stopping.metric) not in metrics:
            raise TableError(
                f"{watched} needs validation images of both classes, and those of one cannot be read: "
                "repair them, or set stopping.metric=val_loss"
            )
        for name, rows in self.data.tests.items():
            try:
                metrics |= self._measured(f"test_{name}", rows)
            except TableError as error:  # a test stops nothing
                self.folder.log(str(error))
        return metrics

    def _measured(self, name: str, rows: list[Row]) -> Metrics:
        metrics, unreadable = validate(self.model, rows, self.data.store, self.accelerator, self._limit, name)
        self.folder.log_skipped(unreadable)
        return metrics

    def save(self, name: str) -> None:
        recipe = self.recipe
        card = Card(recipe.name, recipe.notice, threshold_source=THRESHOLD_SOURCE, positive=recipe.positive)
        self.folder.replace(f"{name}.safetensors", lambda path: save_checkpoint(path, self.model, card))

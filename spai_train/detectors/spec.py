"""What a detector says of itself, once, for `fit`, `evaluate`, `convert`, `tsne` and spai-export.

Axes: B images, V views of an image, N views in a batch, S side of a view, D width of a view's features.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from spai_runtime.errors import UserError
from spai_runtime.views import ViewPolicy
from spai_train.published import PublishedFile
from spai_train.tensors import Content, State

if TYPE_CHECKING:
    from spai_train.data.dataset import TrainingImages

Initial = Literal["upstream", "fan_in", "whitened"]


class Dimensions(Protocol):
    """The dimensions of a model: a frozen dataclass whose defaults are the published ones.

    It stands in the header of our checkpoints and in a recipe's `model`, and msgspec reads it from either.
    """

    @property
    def features(self) -> int:
        """D, the width of a view's features."""


class Verdict(NamedTuple):
    """What a model says of B images of V views.

    :param logit: (B, 1)
    :param attention: (B, V), 1 over the views in sum; None where the head gives none
    :param embedding: (B, E), what contrastive losses compare
    """

    logit: Tensor
    attention: Tensor | None
    embedding: Tensor


class DetectorModel(nn.Module):
    """What every detector's model is: an encoder of views and a head of images, which are exported apart.

    It is a class and no Protocol, since whoever takes a detector's model takes an `nn.Module`.

    :param detector: the name of its row in the table
    :param config: its `Dimensions`
    :param encoder: views (N, S, S, 3) uint8 → features (N, D) float32
    :param head: features (B, V, D) → logit (B, 1), or logit and attention (B, V)
    """

    detector: ClassVar[str]
    config: Any
    encoder: nn.Module
    head: nn.Module

    def forward(self, views: Tensor, *, detached: bool = False) -> Verdict:
        """Computes what `fit` trains; this is for a head without attention, whose embedding is the mean over the views.

        :param views: (B, V, S, S, 3) uint8
        :param detached: whether gradients of the logit end at the embedding
        """
        features = self.encoder(views.flatten(0, 1)).unflatten(0, views.shape[:2])  # (B, V, D)
        return Verdict(self.head(features.detach() if detached else features), None, features.mean(dim=1))

    def penalty(self) -> Tensor | float:
        """A term that a step minimises beside the objective, and that depends on the weights alone."""
        return 0.0


@dataclass(frozen=True)
class Start:
    """What `fit` starts from where it goes on from no checkpoint.

    :param initial: how weights are drawn that are not loaded; `upstream` is as published
    :param pretrained: weights of the backbone: a file, or `timm` for those on its hub; None has none
    :param vae: weights of the VAE of a detector that has one: a file; None has none
    :param images: reads the tables, if nothing has yet, and gives the training images
    :param seed: the seed of what other generators than torch's global one draw; that one has been seeded too
    """

    initial: Initial
    pretrained: str | None
    images: Callable[[], "TrainingImages"]
    seed: int
    vae: str | None = None


def as_built(model: DetectorModel, start: Start) -> None:
    """The first weights are those that the model was built with.

    :raises UserError: other first weights are asked for
    """
    if start.initial != "upstream" or start.pretrained is not None:
        raise UserError(f"{model.detector} is trained from the weights it is built with: set no initial, no pretrained")


@dataclass(frozen=True)
class Stage:
    """A part of a detector that `fit` trains alone, one after the other (`stage` of a recipe).

    :param begin: (model) draws the first weights of the part, leaves gradients to it alone, and makes what the model
        says the part's own answer, so that what was trained is a detector by itself; torch's generator is seeded
    :param side: dimensions → S of its views
    :param beside: dimensions → S of the views that a second augmentation draws of the same image (`beside` of a
        recipe), which the model's `forward` is given too; None draws none
    """

    begin: Callable[[Any], None]
    side: Callable[[Any], int]
    beside: Callable[[Any], int] | None = None


@dataclass(frozen=True)
class Training:
    """What `fit` must know of a detector, beyond its model's `forward`.

    :param initialise: gives a model that was just built its first weights; torch's generator is seeded
    :param backbone: dotted name of the module that a recipe's `freeze`, `compile` and `checkpointing` mean, and whose
        `blocks`, if it has any, learn the slower the earlier they come (`optimizer.layer_decay`)
    :param all_train: dimensions → whether every parameter has a gradient; where in doubt, DDP looks for those without
    :param skips: whether some steps leave out parameters that train, even where the backbone is frozen
    :param stages: its stages by their names
    :param vae: whether it takes the weights of a VAE
    :param dimensions_of: (a recipe's `model`, of whatever types, and `pretrained`) → keys of `model` that this file of
        weights has values for, which count where nobody has chosen others
    """

    initialise: Callable[[Any, Start], None] = as_built
    backbone: str = "encoder"
    all_train: Callable[[Any], bool] = lambda _: False
    skips: bool = False
    stages: Mapping[str, Stage] = field(default_factory=dict, hash=False)
    vae: bool = False
    dimensions_of: Callable[[Mapping[str, Any], str], Mapping[str, Any]] = lambda *_: {}


def mean_features(_: nn.Module, features: Tensor) -> Tensor:
    """:param features: (B, V, D)
    :returns: their mean over the views, (B, D)
    """
    return features.mean(dim=1)


@dataclass(frozen=True)
class DetectorSpec:
    """One detector, in the table of `spai_train.detectors`.

    :param name: the row's, e.g. `spai`; `title` is what sentences call it, e.g. `SPAI`
    :param config: the dataclass of its `Dimensions`
    :param build: dimensions → the model, with random weights
    :param views: dimensions → which views of an image it looks at
    :param recognises: whether tensors that no header explains are those of such a detector, by their names
    :param halve: (encoder, type) puts what may compute in half precision into it, in place; all else stays fp32
    :param code_licence, weights_licence: the licences of what its authors published
    :param attention: whether the head gives the attention too
    :param averages: whether an image's logit is the mean of its views' logits, so that it can look at ten crops as well
    :param embed: (head, features (B, V, D)) → an image's embedding, which is mapped, (B, E)
    :param notice: one line that a user must read before trusting a score, or ""
    :param threshold_source: where the threshold 0.5 comes from, in checkpoints that have no card
    :param read: a file without our header → its dimensions and its tensors under our names, for `build` to hold them
        against; None where there is no layout but ours
    :param to_upstream: the model → what torch.save writes for its authors' code to read, or, by the parts of `files`,
        what it writes into each of them; None where nothing is
    :param tower: a checkpoint's tensors → the weights of the backbone that published checkpoints leave out; None where
        they hold all. `read` finds them beside the checkpoint's tensors, as `encoder.backbone.` and timm's name
    :param files: if a checkpoint is a folder: the name of a part → where its file may lie, the first that is there
        counts. `read` finds a part's tensors as its name, a dot, and theirs
    :param training: None where `fit` cannot train it
    """

    name: str
    title: str
    config: type[Any]
    build: Callable[[Any], DetectorModel]
    views: Callable[[Any], ViewPolicy]
    recognises: Callable[[State], bool]
    halve: Callable[[Any, torch.dtype], None]
    code_licence: str
    weights_licence: str
    attention: bool = False
    averages: bool = False
    embed: Callable[[Any, Tensor], Tensor] = mean_features
    notice: str = ""
    threshold_source: str = "published value, not calibrated"
    read: Callable[[Content], tuple[Any, State]] | None = None
    to_upstream: Callable[[Any], dict[str, Any]] | None = None
    tower: Callable[[State], PublishedFile] | None = None
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    training: Training | None = None

    def side(self, config: Any) -> int:
        """S, the side of the views that are drawn to train a model of these dimensions.

        :raises UserError: its views have no side of their own
        """
        height, width = self.views(config).shape
        if height is None or height != width:
            raise UserError(f"{self.title} looks at views that are no squares of one size, which fit cannot train")
        return height

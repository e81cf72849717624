"""timm's models by their names: which models exist, which pixels they want, and their weights.

A name may come from a checkpoint's header, so nothing is built but what timm itself lists: no repository on a hub, no
folder, no file.
"""

import difflib
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import timm
import torch
from timm.data import resolve_model_data_config
from torch import nn

from spai_runtime.errors import UserError
from spai_runtime.images import Filter
from spai_runtime.text import excerpt
from spai_train.models.vit import Colour
from spai_train.tensors import CheckpointError, exact, first_line, read

_ALIKE = 5  # names that an error suggests
_RULES: dict[str, Literal["shorter", "square"]] = {"center": "shorter", "squash": "square"}  # timm's crop modes
_UNUSED = ("mask_token",)  # tensors of a pre-training that no backbone reads; its classifier timm names itself


class BackboneError(UserError, ValueError):
    """A model that timm does not have or that cannot be a detector's backbone, and why, in one sentence."""


@dataclass(frozen=True)
class Preprocessing:
    """What timm does to an image for one of its models, and what that model gives.

    :param side: the side of the square view that is cropped from the middle, in pixels
    :param resize: the length of the image's shorter side before that, or of both where the rule is `square`
    :param mean, std: those of each channel, for values in [0, 1]
    :param features: D
    """

    side: int
    resize: int
    rule: Literal["shorter", "square"]
    interpolation: Filter
    mean: Colour
    std: Colour
    features: int


def build(name: str) -> nn.Module:
    """A model with random weights and without its classifier.

    :param name: `resnet18`, or with the tag of its weights, `resnet18.a1_in1k`
    :raises BackboneError: timm does not list it
    """
    _check(name)
    model: nn.Module = timm.create_model(name, num_classes=0)
    return model


def with_tag(name: str) -> str:
    """The name with the tag of the weights that timm loads for it, which another version of timm may choose otherwise.

    :raises BackboneError: see `build`
    """
    _check(name)
    architecture, _, tag = name.partition(".")
    tag = tag or timm.get_pretrained_cfg(name).tag
    return f"{architecture}.{tag}" if tag else architecture


def licence(name: str) -> str:
    """The licence of the weights that timm loads for a name that it lists, in timm's words; "" where it says none."""
    return timm.get_pretrained_cfg(name).license or ""


@cache
def preprocessing(name: str) -> Preprocessing:
    """:raises BackboneError: see `build` and `width`; or no view policy can prepare images as timm does for it"""
    with torch.device("meta"):
        config = resolve_model_data_config(build(name))
    channels, side, across = config["input_size"]
    if channels != 3 or side != across:
        raise BackboneError(f"{name} looks at {channels}×{side}×{across} pixels, and views are squares of 3 channels")
    if config["crop_mode"] not in _RULES:
        raise BackboneError(
            f"{name} pads images to squares (timm's crop mode {config['crop_mode']}), which no view policy does; "
            "take another backbone"
        )
    resize, rule = math.floor(side / config["crop_pct"]), _RULES[config["crop_mode"]]
    colours = tuple(config["mean"]), tuple(config["std"])
    return Preprocessing(side, resize, rule, config["interpolation"], *colours, width(name, side))


@cache
def width(name: str, side: int) -> int:
    """D, which is found without computing anything.

    :param side: the side of its square input, in pixels
    :raises BackboneError: see `build`; or it takes no input of that size, or does not give one vector an image
    """
    try:
        with torch.device("meta"), torch.inference_mode():
            shape = build(name).eval()(torch.empty(2, 3, side, side)).shape
    except (RuntimeError, AssertionError, TypeError, AttributeError) as error:
        raise BackboneError(f"{name} takes no views of {side}×{side} pixels: {first_line(error)}") from error
    if len(shape) != 2:
        raise BackboneError(f"{name} gives features {tuple(shape)} of 2 images, and one vector each is wanted")
    return int(shape[1])


def load_weights(backbone: nn.Module, name: str, source: str) -> None:
    """:param backbone: the model that `build` made of the name
    :param source: `timm`, which downloads them, or a file of tensors in timm's names; a classifier in it is left out
    :raises CheckpointError: nothing could be downloaded; tensors are missing, left over, or of another shape
    """
    if source == "timm":
        backbone.load_state_dict(_downloaded(name).state_dict())
        return
    classifier = timm.get_pretrained_cfg(name).classifier or ()
    unused = (*((classifier,) if isinstance(classifier, str) else classifier), *_UNUSED)
    state = {key: tensor for key, tensor in read(Path(source)).state.items() if not _is_of(key, unused)}
    backbone.load_state_dict(exact(state, backbone.state_dict()))


def _check(name: str) -> None:
    """:raises BackboneError: timm does not list it"""
    architecture, dot, tag = name.partition(".")
    known = timm.list_models()
    if architecture not in known:
        alike = difflib.get_close_matches(architecture, known, _ALIKE) or _containing(architecture, known)
        meant = f"; did you mean {', '.join(alike)}?" if alike else "; timm.list_models() has its names"
        raise BackboneError(f"timm has no model {excerpt(name)}{meant}")
    tags = [found.partition(".")[2] for found in timm.list_models(f"{architecture}.*", pretrained=True)]
    if dot and tag not in tags:
        raise BackboneError(
            f"timm has no weights {excerpt(tag)} of {architecture}; it has: {', '.join(tags) or 'none'}"
        )


def _containing(part: str, names: list[str]) -> list[str]:
    return [name for name in names if part and part in name][:_ALIKE]


def _is_of(key: str, modules: tuple[str, ...]) -> bool:
    return any(key == module or key.startswith(f"{module}.") for module in modules)


def _downloaded(name: str) -> nn.Module:
    try:
        model: nn.Module = timm.create_model(name, pretrained=True, num_classes=0)
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"cannot download {name} from timm's hub: {first_line(error)}; or give a file as --pretrained"
        ) from error
    return model

"""AdamW or SGD, with a learning rate that falls towards the first layers."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta
from torch import nn

from spai_train.training.failures import TrainingError

NotNegative = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Beta = Annotated[float, Meta(ge=0, lt=1)]

BACKBONE = "encoder.backbone."  # of SPAI; in masked-frequency pre-training it is `encoder.`


@dataclass(frozen=True)
class OptimizerSettings:
    """A recipe's `optimizer`; the defaults are SPAI's (upstream `configs/spai.yaml`, and `spai/config.py`).

    :param name: The optimizer is `adamw`, or `sgd` with Nesterov's momentum.
    :param learning_rate: This is the highest rate, for whatever comes after the backbone, in steps of
        `schedule.base_batch_size` images.
    :param betas: These are the two decay rates of AdamW's moments.
    :param eps: AdamW adds this to the denominator.
    :param momentum: SGD has this momentum. Upstream: TRAIN.OPTIMIZER.MOMENTUM.
    :param weight_decay: Weights decay by this times the learning rate, but for norms and biases.
    :param layer_decay: The rate is multiplied by this from each layer of the backbone to the one before.
    :param clip: The norm of all gradients together is clipped to this; null does not clip.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: NotNegative = 5e-4
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: NotNegative = 1e-8
    momentum: Annotated[float, Meta(gt=0, lt=1)] = 0.9
    weight_decay: NotNegative = 0.05
    layer_decay: Positive = 0.8
    clip: Positive | None = None


@dataclass(frozen=True)
class PretrainingOptimizer(OptimizerSettings):
    """The `optimizer` of masked-frequency pre-training; the defaults are those of Jiahao000/MFM
    (`configs/vit_base/mfm_pretrain__vit_base__img224__300ep.yaml`), whose rates are for 512 images (`main_mfm.py`).
    """

    learning_rate: NotNegative = 3e-4
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    layer_decay: Positive = 1.0
    clip: Positive | None = 3.0


# The tables of a backbone that are added rather than multiplied, and decay in SPAI's fine-tuning but not in MFM's
# pre-training: upstream's `no_weight_decay` names them so that only the latter finds them.
TOKENS = ("cls_token", "pos_embed")


def build_optimizer(
    model: nn.Module,
    settings: OptimizerSettings,
    depth: int,
    prefix: str = BACKBONE,
    *,
    undecayed: Collection[str] = (),
) -> torch.optim.Optimizer:
    """Builds the optimizer of the groups that `parameter_groups` makes."""
    groups = parameter_groups(model, settings, prefix, depth, undecayed=undecayed)
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum, nesterov=True)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.eps)


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any], run: Path) -> None:
    """Takes up what an optimizer of the same groups has saved.

    :param run: the folder that it was saved in
    :raises TrainingError: this version puts the same parameters in other groups
    """
    before, now = (
        [group.get("name") for group in groups] for groups in (state["param_groups"], optimizer.param_groups)
    )
    if before != now:
        raise TrainingError(
            f"{run} holds a run of an earlier version, which decays other weights: go on with that version, or begin "
            "anew under another --output"
        )
    optimizer.load_state_dict(state)


def parameter_groups(
    model: nn.Module, settings: OptimizerSettings, prefix: str, depth: int, *, undecayed: Collection[str] = ()
) -> list[dict[str, Any]]:
    """The parameters that train, by layer and by whether they decay; groups are in the order of the model.

    The rate of layer l is learning_rate · layer_decay^(depth + 1 − l), BEiT's rule. Upstream's looks for the layers
    under names that miss SPAI's prefix `mfvit.vit.`, so there every parameter is of the last layer and `LAYER_DECAY`
    has no effect; here it has.

    :param model: not wrapped yet, for the names are the model's own
    :param prefix: the prefix of the names of the backbone's parameters
    :param depth: the number of blocks of the backbone
    :param undecayed: parameters of the backbone whose weights do not decay, beside norms and biases, e.g. TOKENS
    :returns: groups with `name`, `params`, `weight_decay`, and `peak`, the rate that a schedule rises to
    """
    groups: dict[str, dict[str, Any]] = {}
    spared = {prefix + name for name in undecayed}
    for name, parameter in _trainable(model):
        layer, decays = layer_of(name, prefix, depth), _multiplies(name, parameter) and name not in spared
        title = f"layer {layer}, {'weight decay' if decays else 'no weight decay'}"
        peak = settings.learning_rate * settings.layer_decay ** (depth + 1 - layer)
        weight_decay = settings.weight_decay if decays else 0.0
        group = {"name": title, "params": [], "lr": peak, "peak": peak, "weight_decay": weight_decay}
        groups.setdefault(title, group)["params"].append(parameter)
    return list(groups.values())


def layer_of(name: str, prefix: str, depth: int) -> int:
    """A parameter's layer: 0 comes before the blocks, i + 1 is the block i, and depth + 1 is all that follows."""
    inside = name.removeprefix(prefix)
    if inside == name:
        return depth + 1
    part, *rest = inside.split(".")
    if part in ("cls_token", "pos_embed", "patch_embed", "norm_pre"):
        return 0
    return int(rest[0]) + 1 if part == "blocks" else depth + 1


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _multiplies(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter multiplies, which norms and biases do not."""
    return parameter.ndim > 1 and not name.endswith(".bias")

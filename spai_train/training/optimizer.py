"""AdamW with a learning rate that falls towards the first layers, and its schedule over the steps."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

BACKBONE = "encoder.backbone."  # of SPAI; in masked-frequency pre-training it is `encoder.`


@dataclass(frozen=True)
class OptimizerSettings:
    """A recipe's `optimizer`; the defaults are SPAI's (upstream `configs/spai.yaml`, and `spai/config.py`).

    :param learning_rate: the peak, for whatever comes after the backbone
    :param layer_decay: what the rate is multiplied by, from each layer of the backbone to the one before
    :param clip: the largest norm of all gradients together; None does not clip
    """

    learning_rate: float = 5e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.05
    layer_decay: float = 0.8
    clip: float | None = None


@dataclass(frozen=True)
class ScheduleSettings:
    """A recipe's `schedule`: a linear warm-up, then a cosine; the defaults are SPAI's (upstream `configs/spai.yaml`).

    :param warmup_epochs: a fraction is a part of an epoch
    :param warmup_rate: of the first step; the same for all layers
    :param final_rate: that the cosine ends in; the same for all layers
    """

    epochs: int = 35
    warmup_epochs: float = 5.0
    warmup_rate: float = 2.5e-7
    final_rate: float = 2.5e-7


# Masked-frequency pre-training: `configs/vit_base/mfm_pretrain__vit_base__img224__300ep.yaml` of Jiahao000/MFM.
PRETRAINING = OptimizerSettings(learning_rate=3e-4, betas=(0.9, 0.95), layer_decay=1.0, clip=3.0)
PRETRAINING_SCHEDULE = ScheduleSettings(epochs=300, warmup_epochs=20.0, warmup_rate=2.5e-7, final_rate=2.5e-6)


def build_optimizer(
    model: nn.Module, settings: OptimizerSettings, depth: int, prefix: str = BACKBONE
) -> torch.optim.AdamW:
    """AdamW over the groups of `parameter_groups`, whose parameters these are."""
    groups = parameter_groups(model, settings, prefix, depth)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.eps)


def parameter_groups(model: nn.Module, settings: OptimizerSettings, prefix: str, depth: int) -> list[dict[str, Any]]:
    """What trains, by layer and by whether it decays, in the order of the model: the same model, the same groups.

    The rate of layer l is learning_rate · layer_decay^(depth + 1 − l), BEiT's rule. Upstream's looks for the layers
    under names that miss SPAI's prefix `mfvit.vit.`, so there every parameter is of the last layer and `LAYER_DECAY`
    has no effect; here it has.

    :param model: not wrapped yet, for the names are the model's own
    :param prefix: of the backbone's parameters
    :param depth: blocks of the backbone
    :returns: groups with `name`, `params`, `weight_decay`, and `peak`, the rate that a schedule rises to
    """
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in _trainable(model):
        layer, decays = layer_of(name, prefix, depth), _decays(name, parameter, prefix)
        title = f"layer {layer}, {'weight decay' if decays else 'no weight decay'}"
        peak = settings.learning_rate * settings.layer_decay ** (depth + 1 - layer)
        weight_decay = settings.weight_decay if decays else 0.0
        group = {"name": title, "params": [], "lr": peak, "peak": peak, "weight_decay": weight_decay}
        groups.setdefault(title, group)["params"].append(parameter)
    return list(groups.values())


def layer_of(name: str, prefix: str, depth: int) -> int:
    """0 is what comes before the blocks, i + 1 the block i, depth + 1 whatever follows them."""
    inside = name.removeprefix(prefix)
    if inside == name:
        return depth + 1
    part, *rest = inside.split(".")
    if part in ("cls_token", "pos_embed", "patch_embed", "norm_pre"):
        return 0
    return int(rest[0]) + 1 if part == "blocks" else depth + 1


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _decays(name: str, parameter: nn.Parameter, prefix: str) -> bool:
    """Norms, biases, and the two tables of the backbone that are added rather than multiplied do not."""
    added = name in (f"{prefix}cls_token", f"{prefix}pos_embed")
    return parameter.ndim > 1 and not name.endswith(".bias") and not added


@dataclass(frozen=True)
class CosineSchedule:
    """The rates of every step; it holds no state, so a run resumes by setting those of its next step.

    :param steps_per_epoch: of the optimizer: an accumulated batch is one step
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
        """Before optimizer step `step`, counted from 0: every group gets its rate, on the way to its own `peak`."""
        for group in optimizer.param_groups:
            group["lr"] = rate(step, self.settings, group["peak"], self.total_steps, self.warmup_steps)


def rate(step: int, settings: ScheduleSettings, peak: float, total_steps: int, warmup_steps: int) -> float:
    """The learning rate of an optimizer step, as upstream gets it from timm's CosineLRScheduler.

    Its scheduler is moved on after each step, to that step's own number, so a step has the rate of the number before.
    Its cosine starts at step 0, under the warm-up: it takes over below the peak, by 5% where the warm-up is a seventh.

    :param step: from 0
    :param peak: what the warm-up aims at
    """
    time = max(step - 1, 0)
    if time < warmup_steps:
        return settings.warmup_rate + (peak - settings.warmup_rate) * time / warmup_steps
    if time >= total_steps:
        return settings.final_rate
    return settings.final_rate + (peak - settings.final_rate) * (1 + math.cos(math.pi * time / total_steps)) / 2

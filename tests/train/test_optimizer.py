"""The optimizer against AdamW written out, the groups against the model's names, the schedule against timm's."""

import math
import re

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from timm.scheduler import CosineLRScheduler
from torch import nn

from spai_train.detectors.spai.model import SPAI, SPAIConfig
from spai_train.training.optimizer import (
    BACKBONE,
    PRETRAINING,
    PRETRAINING_SCHEDULE,
    CosineSchedule,
    OptimizerSettings,
    ScheduleSettings,
    build_optimizer,
    layer_of,
    parameter_groups,
    rate,
)

SCHEDULES = [(35, 5, 1), (35, 5, 7), (10, 0, 3), (4, 0.5, 5), (2, 3, 2)]  # epochs, of warm-up, steps an epoch


class Pair(nn.Module):
    """A matrix and a vector, the one decayed and the other not."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]]))
        self.vector = nn.Parameter(torch.tensor([0.25, -0.75]))


class Pretraining(nn.Module):
    """A backbone where masked-frequency pre-training has it, and a decoder."""

    def __init__(self, model: SPAI) -> None:
        super().__init__()
        self.encoder, self.decoder = model.encoder.backbone, nn.Linear(16, 3)


def adamw(
    x: NDArray[np.float64], gradients: list[NDArray[np.float64]], settings: OptimizerSettings, weight_decay: float
) -> NDArray[np.float64]:
    """Loshchilov & Hutter 2019, algorithm 2."""
    m, v = np.zeros_like(x), np.zeros_like(x)
    (beta1, beta2), lr = settings.betas, settings.learning_rate
    for t, g in enumerate(gradients, start=1):
        x = x - lr * weight_decay * x
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        x = x - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + settings.eps)
    return x


def test_steps_are_those_of_adamw() -> None:
    settings = OptimizerSettings(learning_rate=0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.3)
    rng, model = np.random.default_rng(0), Pair()
    before = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    gradients = {name: [rng.normal(size=x.shape) for _ in range(3)] for name, x in before.items()}
    optimizer = build_optimizer(model, settings, depth=2)
    for step in range(3):
        for name, parameter in model.named_parameters():
            parameter.grad = torch.from_numpy(gradients[name][step]).float()
        optimizer.step()
    for name, decay in (("matrix", 0.3), ("vector", 0.0)):
        expected = adamw(before[name], gradients[name], settings, decay)
        np.testing.assert_allclose(getattr(model, name).detach(), expected, rtol=1e-5)


def flat(groups: list[dict[str, object]]) -> dict[int, tuple[float, float]]:
    """By parameter: the peak of its rate and its weight decay."""
    return {id(p): (g["peak"], g["weight_decay"]) for g in groups for p in g["params"]}  # type: ignore


@pytest.mark.parametrize("depth", [2, 3])
def test_every_parameter_has_its_layers_rate_and_its_decay(tiny_config: SPAIConfig, depth: int) -> None:
    model = SPAI(SPAIConfig(**{**vars(tiny_config), "depth": depth}))
    settings = OptimizerSettings(learning_rate=1.0, layer_decay=0.5, weight_decay=0.05)
    groups = flat(parameter_groups(model, settings, BACKBONE, depth))
    for name, parameter in model.named_parameters():
        first = re.match(r"encoder\.backbone\.(cls_token|pos_embed|patch_embed\.)", name)
        block = re.match(r"encoder\.backbone\.blocks\.(\d+)\.", name)
        layer = 0 if first else 1 + int(block[1]) if block else depth + 1
        plain = name.endswith((".bias", "cls_token", "pos_embed")) or "norm" in name
        assert groups[id(parameter)] == (0.5 ** (depth + 1 - layer), 0.0 if plain else 0.05), name
    assert len(groups) == len(list(model.parameters()))


def test_groups_are_named_and_ordered_as_the_model(tiny_model: SPAI) -> None:
    names = [group["name"] for group in parameter_groups(tiny_model, OptimizerSettings(), BACKBONE, 2)]
    assert names == [
        "layer 0, no weight decay",
        "layer 0, weight decay",
        "layer 1, no weight decay",
        "layer 1, weight decay",
        "layer 2, no weight decay",
        "layer 2, weight decay",
        "layer 3, no weight decay",
        "layer 3, weight decay",
    ]


@pytest.mark.parametrize(("norm", "layer"), [("norm_pre", 0), ("norm", 13)])
def test_the_norms_of_other_backbones_are_of_the_layer_they_touch(norm: str, layer: int) -> None:
    """CLIP normalises before its blocks, DINOv2 after them."""
    assert layer_of(f"encoder.backbone.{norm}.weight", BACKBONE, 12) == layer


def test_a_frozen_backbone_leaves_what_follows_it(tiny_config: SPAIConfig) -> None:
    model = SPAI(tiny_config)
    model.encoder.backbone.requires_grad_(False)
    groups = parameter_groups(model, OptimizerSettings(), BACKBONE, 2)
    parts = (model.encoder.projectors, model.encoder.context, model.head)
    assert flat(groups).keys() == {id(p) for part in parts for p in part.parameters()}
    assert [group["name"] for group in groups] == ["layer 3, no weight decay", "layer 3, weight decay"]
    assert {group["peak"] for group in groups} == {5e-4}


def test_pretraining_has_one_rate_for_all_layers(tiny_config: SPAIConfig) -> None:
    model = Pretraining(SPAI(tiny_config))
    groups = parameter_groups(model, PRETRAINING, "encoder.", 2)
    table = flat(groups)
    assert {peak for peak, _ in table.values()} == {3e-4}
    assert table[id(model.encoder.pos_embed)] == table[id(model.encoder.cls_token)] == (3e-4, 0.0)
    assert table[id(model.decoder.weight)] == (3e-4, 0.05)
    assert {group["name"] for group in groups} >= {"layer 0, weight decay", "layer 2, weight decay"}


@pytest.mark.parametrize(("epochs", "warmup", "steps"), SCHEDULES)
def test_rates_are_those_of_upstreams_scheduler(
    tiny_config: SPAIConfig, epochs: int, warmup: float, steps: int
) -> None:
    settings = ScheduleSettings(epochs, warmup, warmup_rate=1e-6, final_rate=2e-6)
    ours = build_optimizer(SPAI(tiny_config), OptimizerSettings(), depth=2)
    theirs = build_optimizer(SPAI(tiny_config), OptimizerSettings(), depth=2)
    scheduler = CosineLRScheduler(
        theirs,
        t_initial=epochs * steps,
        warmup_t=int(warmup * steps),
        warmup_lr_init=settings.warmup_rate,
        lr_min=settings.final_rate,
        cycle_limit=1,
        t_in_epochs=False,
    )
    schedule = CosineSchedule(settings, steps)
    for step in range(epochs * steps + 2):
        schedule.set_rates(ours, step)
        expected = [group["lr"] for group in theirs.param_groups]
        np.testing.assert_allclose([group["lr"] for group in ours.param_groups], expected, rtol=1e-12)
        scheduler.step_update(step)


def test_rates_are_the_closed_formula() -> None:
    settings = ScheduleSettings(warmup_rate=0.1, final_rate=0.2)
    rates = [rate(step, settings, peak=1.0, total_steps=20, warmup_steps=4) for step in range(23)]
    assert rates[:5] == pytest.approx([0.1, 0.1, 0.325, 0.55, 0.775])
    assert rates[5:21] == pytest.approx([0.2 + 0.4 * (1 + math.cos(math.pi * t / 20)) for t in range(4, 20)])
    assert rates[21:] == [0.2, 0.2]


def test_the_published_settings() -> None:
    """SPAI warms up for 5 of 35 epochs, MFM for 20 of 300."""
    spai, mfm = (CosineSchedule(settings, 100) for settings in (ScheduleSettings(), PRETRAINING_SCHEDULE))
    assert (spai.total_steps, spai.warmup_steps) == (3500, 500)
    assert (mfm.total_steps, mfm.warmup_steps) == (30_000, 2000)
    assert rate(501, spai.settings, 5e-4, 3500, 500) == pytest.approx(0.95 * 5e-4, rel=1e-3)
    assert (PRETRAINING.betas, PRETRAINING.layer_decay, PRETRAINING.clip) == ((0.9, 0.95), 1.0, 3.0)


def test_a_resumed_optimizer_has_the_rates_of_one_that_never_stopped() -> None:
    schedule = CosineSchedule(ScheduleSettings(epochs=4, warmup_epochs=1), steps_per_epoch=3)
    whole, half = (build_optimizer(Pair(), OptimizerSettings(), depth=2) for _ in range(2))
    for step in range(8):
        schedule.set_rates(whole, step)
    half.load_state_dict(whole.state_dict())
    for optimizer in (whole, half):
        schedule.set_rates(optimizer, 8)
    assert [group["lr"] for group in half.param_groups] == [group["lr"] for group in whole.param_groups]
    assert half.param_groups[0]["lr"] == rate(8, schedule.settings, 5e-4, 12, 3)

"""The optimizers against AdamW and SGD written out, the groups against the model's names."""

import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from spai_train.detectors.spai.model import SPAI, SPAIConfig
from spai_train.detectors.spai.upstream import upstream_name
from spai_train.models.mfm import MaskedFrequencyModel
from spai_train.training.optimizer import (
    BACKBONE,
    TOKENS,
    OptimizerSettings,
    PretrainingOptimizer,
    build_optimizer,
    layer_of,
    parameter_groups,
)


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


def nesterov(
    x: NDArray[np.float64], gradients: list[NDArray[np.float64]], settings: OptimizerSettings, weight_decay: float
) -> NDArray[np.float64]:
    """Sutskever et al. 2013 as torch and upstream have it: v ← μ·v + g, x ← x − lr·(g + μ·v), the decay in g."""
    velocity = np.zeros_like(x)
    for gradient in gradients:
        g = gradient + weight_decay * x
        velocity = settings.momentum * velocity + g
        x = x - settings.learning_rate * (g + settings.momentum * velocity)
    return x


@pytest.mark.parametrize(("name", "written_out"), [("adamw", adamw), ("sgd", nesterov)])
def test_steps_are_those_written_out(name: Literal["adamw", "sgd"], written_out: Callable[..., Any]) -> None:
    settings = OptimizerSettings(
        name=name, learning_rate=0.1, betas=(0.8, 0.95), eps=1e-3, momentum=0.7, weight_decay=0.3
    )
    rng, model = np.random.default_rng(0), Pair()
    before = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    gradients = {name: [rng.normal(size=x.shape) for _ in range(3)] for name, x in before.items()}
    optimizer = build_optimizer(model, settings, depth=2)
    for step in range(3):
        for part, parameter in model.named_parameters():
            parameter.grad = torch.from_numpy(gradients[part][step]).float()
        optimizer.step()
    for part, decay in (("matrix", 0.3), ("vector", 0.0)):
        expected = written_out(before[part], gradients[part], settings, decay)
        np.testing.assert_allclose(getattr(model, part).detach(), expected, rtol=1e-5)


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
        plain = name.endswith(".bias") or "norm" in name
        assert groups[id(parameter)] == (0.5 ** (depth + 1 - layer), 0.0 if plain else 0.05), name
    assert len(groups) == len(list(model.parameters()))


def test_groups_are_named_and_ordered_as_the_model(tiny_model: SPAI) -> None:
    names = [group["name"] for group in parameter_groups(tiny_model, OptimizerSettings(), BACKBONE, 2)]
    assert names == [
        "layer 0, weight decay",
        "layer 0, no weight decay",
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
    groups = parameter_groups(model, PretrainingOptimizer(), "encoder.", 2, undecayed=TOKENS)
    table = flat(groups)
    assert {peak for peak, _ in table.values()} == {3e-4}
    assert table[id(model.encoder.pos_embed)] == table[id(model.encoder.cls_token)] == (3e-4, 0.0)
    assert table[id(model.decoder.weight)] == (3e-4, 0.05)
    assert {group["name"] for group in groups} >= {"layer 0, weight decay", "layer 2, weight decay"}


def upstream_no_decay(names: dict[str, torch.Size], skip: set[str]) -> set[str]:
    """The rule of upstream's `get_finetune_param_groups` and `get_pretrain_param_groups`."""
    return {name for name, shape in names.items() if len(shape) == 1 or name.endswith(".bias") or name in skip}


def test_fine_tuning_decays_what_upstreams_does(tiny_config: SPAIConfig) -> None:
    """`PatchBasedMFViT` has no `no_weight_decay`, so nothing is skipped by its name."""
    model = SPAI(tiny_config)
    names = {upstream_name(name): (name, part.shape) for name, part in model.named_parameters()}
    spared = upstream_no_decay({theirs: shape for theirs, (_, shape) in names.items()}, set())
    table = flat(parameter_groups(model, OptimizerSettings(), BACKBONE, 2))
    parameters = dict(model.named_parameters())
    ours = {theirs for theirs, (name, _) in names.items() if table[id(parameters[name])][1] == 0}
    assert ours == spared
    assert not {"mfvit.vit.cls_token", "mfvit.vit.pos_embed"} & ours


def test_pre_training_decays_what_upstreams_does(tiny_config: SPAIConfig) -> None:
    """`MFM.no_weight_decay` puts `encoder.` before the two names that its vision transformer gives."""
    model = MaskedFrequencyModel(tiny_config)
    names = {name: part.shape for name, part in model.named_parameters()}
    table = flat(parameter_groups(model, PretrainingOptimizer(), "encoder.", 2, undecayed=TOKENS))
    ours = {name for name, part in model.named_parameters() if table[id(part)][1] == 0}
    assert ours == upstream_no_decay(names, {"encoder.pos_embed", "encoder.cls_token"})

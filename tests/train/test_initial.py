"""The moments of the first weights."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from spai_train.detectors.spai.initial import Scheme, initialise
from spai_train.detectors.spai.model import SPAI
from spai_train.models.vit import BackboneName
from tests.support.models import TINY

WIDE = replace(TINY, width=96, projection=64, attention_width=64)


def drawn(scheme: Scheme, backbone: BackboneName = "mfm") -> tuple[SPAI, dict[str, Tensor]]:
    """A model whose every parameter was 7, and what it was before that."""
    torch.manual_seed(0)
    model = SPAI(replace(WIDE, backbone=backbone))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7)
    initialise(model, scheme)
    return model, dict(model.named_parameters())


def linear(module: nn.Module) -> list[nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


@pytest.mark.parametrize("backbone", ["mfm", "clip", "dinov2"])
def test_upstreams_layers(backbone: BackboneName) -> None:
    model, parameters = drawn("upstream", backbone)
    behind = nn.ModuleList((model.encoder.projectors, model.encoder.context, model.head))
    for layer in linear(behind):
        if layer.weight.numel() > 1000:
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert layer.weight.abs().max() > 0.05  # a normal that is not cut at a deviation or two
        assert layer.bias is None or not layer.bias.any()
    for layer in behind.modules():
        if isinstance(layer, nn.LayerNorm):
            assert (layer.weight == 1).all()
            assert not layer.bias.any()
    assert parameters["head.queries"].std().item() == pytest.approx(0.02, rel=0.3)
    assert parameters["encoder.context.alpha"].std().item() == pytest.approx(1, rel=0.2)
    kept = [(parameter == 7).all() for parameter in model.encoder.backbone.parameters()]
    assert all(kept) if backbone != "mfm" else not any(kept)


def test_upstreams_backbone() -> None:
    """All linear layers alike, whatever their depth; the patch embedding is uniform."""
    model, _ = drawn("upstream")
    backbone = model.encoder.backbone
    for layer in linear(backbone):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
    for token in (backbone.pos_embed, backbone.cls_token):
        assert token.std().item() == pytest.approx(0.02, rel=0.2)
    weight = backbone.patch_embed.proj.weight  # (96, 3, 8, 8)
    bound = (6 / (3 * 64 + 96 * 64)) ** 0.5
    assert 0.99 * bound < weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert not backbone.patch_embed.proj.bias.any()


def test_fan_in() -> None:
    model, _ = drawn("fan_in")
    for layer in linear(nn.ModuleList((model.encoder.projectors, model.encoder.context, model.head))):
        if layer.weight.numel() > 1000:
            assert layer.weight.std().item() == pytest.approx(layer.in_features**-0.5, rel=0.1)
        assert layer.bias is None or not layer.bias.any()
    assert all((parameter == 7).all() for parameter in model.encoder.backbone.parameters())


@pytest.mark.parametrize("scheme", ["upstream", "fan_in"])
def test_a_seed_gives_the_same_weights(scheme: Scheme) -> None:
    (_, one), (_, other) = drawn(scheme), drawn(scheme)
    assert all(torch.equal(one[name], other[name]) for name in one)

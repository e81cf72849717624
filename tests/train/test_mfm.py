"""Pre-training against its definition, written with the whole FFT."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spai_train.detectors.spai.model import SPAI
from spai_train.models.mfm import FrequencyLoss, MaskedFrequencyModel, save_pretrained
from spai_train.models.pretrained import load_pretrained
from tests.support.models import TINY

CROPS = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LOW = torch.tensor([True, False, True])


@pytest.fixture
def model() -> MaskedFrequencyModel:
    torch.manual_seed(0)
    return MaskedFrequencyModel(TINY)


def keeps_low() -> Tensor:
    """(32, 32): a frequency is low within a radius of 4 of the centre, where fftshift puts DC."""
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    return ((x - 16) ** 2 + (y - 16) ** 2 < 4**2).double()


def spectrum(images: Tensor, norm: str = "backward") -> Tensor:
    return torch.fft.fftshift(torch.fft.fft2(images, norm=norm), dim=(-2, -1))


def normalised(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(v).double()[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (images - mean) / std


def loss_by_definition(model: MaskedFrequencyModel, low: Tensor, gamma: float, target: str) -> Tensor:
    """In float64: corrupt, encode, decode patch by patch, compare spectra."""
    images = CROPS.double().permute(0, 3, 1, 2) / 255
    kept = torch.stack([keeps_low() if image else 1 - keeps_low() for image in low])[:, None]  # (N, 1, S, S)
    corrupted = torch.fft.ifft2(torch.fft.ifftshift(spectrum(images) * kept, dim=(-2, -1))).real.clamp(0, 1)
    (tokens,) = model.encoder(normalised(corrupted))  # (N, 16, C)
    pixels = F.linear(tokens, model.decoder[0].weight.flatten(1), model.decoder[0].bias)  # (N, 16, 3 · 64)
    patches = pixels.reshape(len(CROPS), 4, 4, 3, 8, 8)
    predicted = patches.permute(0, 3, 1, 4, 2, 5).reshape(len(CROPS), 3, 32, 32)
    difference = spectrum(predicted, "ortho") - spectrum(normalised(images), "ortho")
    distance = torch.sqrt(difference.real**2 + difference.imag**2 + 1e-12) ** gamma
    if target == "normal":
        return distance.mean()
    removed = (1 - kept).expand_as(distance).bool()
    return distance[removed].mean()


def gradient(loss: Tensor, model: nn.Module) -> Tensor:
    """Of all parameters, in one vector."""
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))])


@pytest.mark.parametrize("target", ["masked", "normal"])
@pytest.mark.parametrize("gamma", [1.0, 0.5])
@pytest.mark.parametrize("low", [[True, False, True], [True] * 3, [False] * 3])
def test_loss_and_gradients_are_the_definition(target: str, gamma: float, low: list[bool]) -> None:
    torch.manual_seed(0)
    model = MaskedFrequencyModel(TINY, FrequencyLoss(gamma, target)).double()  # type: ignore[arg-type]
    loss = model(CROPS, torch.tensor(low))
    expected = loss_by_definition(model, torch.tensor(low), gamma, target)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    found, wanted = (gradient(value, model) for value in (loss, expected))
    tolerance = 1e-6 if gamma == 1 else 5e-6  # a root magnifies the rounding of the filter's constants
    assert (found - wanted).norm() < tolerance * wanted.norm()


def test_single_precision_and_autocast(model: MaskedFrequencyModel) -> None:
    loss = model(CROPS, LOW)
    assert loss.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(CROPS, LOW)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, loss, rtol=1e-2, atol=0)
    rounded.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())  # type: ignore[arg-type]


def test_pretraining_learns(model: MaskedFrequencyModel) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = model(CROPS, LOW)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_first_weights_are_upstreams() -> None:
    """Cut at one deviation, a normal's deviation is 0.5396 of what it was."""
    torch.manual_seed(0)
    encoder = MaskedFrequencyModel(replace(TINY, width=128, depth=3)).encoder
    for name, weight, share in (
        ("patches", encoder.patch_embed.proj.weight, 1.0),
        ("positions", encoder.pos_embed, 1.0),
        ("qkv", encoder.blocks[2].attn.qkv.weight, 1.0),
        ("proj", encoder.blocks[0].attn.proj.weight, 2**-0.5),
        ("fc2", encoder.blocks[2].mlp.fc2.weight, 6**-0.5),
    ):
        assert weight.abs().max() <= 0.02 * share * 1.0001, name
        assert weight.std().item() == pytest.approx(0.5396 * 0.02 * share, rel=0.05), name
    assert not any(layer.bias.any() for layer in encoder.modules() if isinstance(layer, nn.Linear | nn.Conv2d))


def test_no_path_is_dropped() -> None:
    model = MaskedFrequencyModel(replace(TINY, drop_path=0.9)).train()
    assert torch.equal(model(CROPS, LOW), model(CROPS, LOW))


def test_what_is_pretrained_reaches_the_detector(model: MaskedFrequencyModel, tmp_path: Path) -> None:
    save_pretrained(tmp_path / "mfm.pth", model, epoch=7)
    detector = SPAI(TINY).eval()
    load_pretrained(detector.encoder.backbone, tmp_path / "mfm.pth")
    images = torch.randn(2, 3, 32, 32)
    model.encoder.norm = nn.Identity()  # a detector reads the blocks without it
    torch.testing.assert_close(detector.encoder.backbone(images)[-1], model.encoder(images)[0])


def test_the_file_has_upstreams_names(model: MaskedFrequencyModel, tmp_path: Path) -> None:
    save_pretrained(tmp_path / "mfm.pth", model, epoch=7)
    content = torch.load(tmp_path / "mfm.pth", weights_only=True)
    assert content["epoch"] == 7
    assert content["config"]["MODEL"]["VIT"]["EMBED_DIM"] == 16
    block = ["norm1.weight", "norm1.bias", "attn.q_bias", "attn.v_bias", "attn.qkv.weight", "attn.proj.weight"]
    block += ["attn.proj.bias", "norm2.weight", "norm2.bias", "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight"]
    block += ["mlp.fc2.bias"]
    names = ["cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight", "norm.bias"]
    names += [f"blocks.{index}.{name}" for index in range(2) for name in block]
    expected = {f"encoder.{name}" for name in names} | {"decoder.0.weight", "decoder.0.bias"}
    assert content["model"].keys() == expected

"""First weights: drawn from the seed, pre-trained where a file says so, whitened on the images themselves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from spai_train.checkpoint import CheckpointError
from spai_train.data.augment import Augment
from spai_train.data.augmentation import PLAIN
from spai_train.data.dataset import TrainingImages
from spai_train.data.order import Ticket
from spai_train.data.stores import Files
from spai_train.data.table import read_table
from spai_train.detectors.spai import SPEC
from spai_train.detectors.spai.model import SPAI
from spai_train.models.mfm import MaskedFrequencyModel, save_pretrained
from spai_train.training.start import draw_model, whiten
from tests.support.training import fit_recipe, same, write_labelled

CONFIG = fit_recipe(Path("t.csv")).model


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> TrainingImages:
    rows = read_table(write_labelled(tmp_path_factory.mktemp("data") / "set"), "train")
    return TrainingImages(rows, Files(), Augment(PLAIN, 32), 2, 0)


def drawn(images: TrainingImages, initial: Any = "fan_in", seed: int = 0, pretrained: str | None = None) -> SPAI:
    return draw_model(SPEC, CONFIG, seed, initial, pretrained, lambda: images)


def test_weights_follow_from_the_seed(images: TrainingImages) -> None:
    one = drawn(images).state_dict()
    torch.rand(5)
    assert same(one, drawn(images).state_dict())
    other = drawn(images, seed=1).state_dict()
    drawn_from_seed = [name for name in one if name.endswith("proj.weight")]
    assert len(drawn_from_seed) > CONFIG.depth  # of each block, and the patch embedding's
    assert not any(torch.equal(one[name], other[name]) for name in drawn_from_seed)


def test_schemes_differ_in_their_variances(images: TrainingImages) -> None:
    """A linear layer of 40 inputs in the head."""
    spread = {scheme: drawn(images, scheme).head.mlp[1].weight.std().item() for scheme in ("upstream", "fan_in")}
    assert spread["upstream"] == pytest.approx(0.02, rel=0.1)
    assert spread["fan_in"] == pytest.approx(CONFIG.features**-0.5 / CONFIG.head_ratio**0.5, rel=0.1)


def test_a_pre_trained_backbone_is_taken_exactly(images: TrainingImages, tmp_path: Path) -> None:
    torch.manual_seed(7)
    theirs = MaskedFrequencyModel(CONFIG)
    save_pretrained(tmp_path / "last.pth", theirs)
    ours = drawn(images, pretrained=str(tmp_path / "last.pth"))
    backbone = {name: part for name, part in theirs.encoder.state_dict().items() if not name.startswith("norm.")}
    loaded = ours.encoder.backbone.state_dict()
    for name, part in backbone.items():
        expected = part.clone()
        if name.endswith("qkv.bias"):
            expected[16:32] = 0  # upstream has no bias on the keys
        assert torch.equal(loaded[name], expected), name
    assert same(ours.head.state_dict(), drawn(images).head.state_dict())


def test_a_file_that_does_not_fit_is_refused(images: TrainingImages, tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("nothing")
    with pytest.raises(CheckpointError, match=r"text\.pth"):
        drawn(images, pretrained=str(tmp_path / "text.pth"))


def all_patches(images: TrainingImages, label: int) -> Tensor:
    """Every piece of 8×8 pixels in the views of a class, normalised: (M, 3, 8, 8)."""
    mean, std = (np.array(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    chosen = [index for index, row in enumerate(images.rows) if row.label == label]
    views = np.concatenate([images[Ticket(0, index)].views for index in chosen])
    pixels = (views.transpose(0, 3, 1, 2) / 255 - mean) / std  # (N, 3, S, S)
    pieces = np.lib.stride_tricks.sliding_window_view(pixels, (3, 8, 8), axis=(1, 2, 3))
    return torch.from_numpy(pieces.reshape(-1, 3, 8, 8)).float()


def covariance(images: TrainingImages, model: SPAI, label: int) -> Tensor:
    """Of what the patch embedding makes of them, (16, 16)."""
    with torch.no_grad():
        embedded = model.encoder.backbone.patch_embed.proj(all_patches(images, label)).flatten(1)
    return torch.cov(embedded.T)


def test_patches_of_real_images_are_whitened(images: TrainingImages) -> None:
    model, plain = drawn(images, "whitened"), drawn(images)
    torch.testing.assert_close(covariance(images, model, 0), torch.eye(16), atol=0.1, rtol=0)
    assert float((covariance(images, model, 1) - torch.eye(16)).abs().max()) > 1  # generated ones had no say
    rest = {name: part for name, part in model.state_dict().items() if ".patch_embed." not in name}
    assert same(rest, {name: plain.state_dict()[name] for name in rest})


def test_images_without_a_real_one_are_whitened_all_the_same(images: TrainingImages) -> None:
    generated = TrainingImages([row for row in images.rows if row.label], Files(), images.augment, 2, 0)
    model = drawn(images)
    whiten(model.encoder, model.encoder.backbone, generated, 0)
    torch.testing.assert_close(covariance(generated, model, 1), torch.eye(16), atol=0.1, rtol=0)

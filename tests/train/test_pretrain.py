"""Pre-training: a step against its definition, written with the whole FFT, and what a run leaves."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from spai_runtime.errors import OutputError
from spai_train.data.augment import Augment
from spai_train.data.dataset import TrainingImages, collate
from spai_train.data.order import Ticket, permutation
from spai_train.data.rows import read_unlabelled
from spai_train.models.mfm import MaskedFrequencyModel
from spai_train.pretrain import PretrainRecipe, pretrain
from spai_train.sections import RecipeError
from spai_train.seeds import Use, seed_of
from tests.support.training import largest_difference, metrics_of, pretrain_recipe, same, write_labelled
from tests.support.written_out import MEAN, STD, AdamW

STEADY: dict[str, Any] = {"optimizer__eps": 1e-4, "optimizer__learning_rate": 1e-3}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the recipe as it is; do not write into it."""
    path = tmp_path_factory.mktemp("run") / "run"
    pretrain(pretrain_recipe(table), path)
    return path


def weights(path: Path) -> dict[str, Tensor]:
    """In our names, from the state."""
    return torch.load(path / "state.pt", weights_only=True)["model"]  # type: ignore[no-any-return]


def published(path: Path) -> dict[str, Tensor]:
    """In upstream's names."""
    return torch.load(path / "last.pth", weights_only=True)["model"]  # type: ignore[no-any-return]


def short(table: Path, path: Path, **overrides: Any) -> dict[str, Tensor]:
    """The weights after an epoch."""
    pretrain(pretrain_recipe(table, **{"schedule__epochs": 1, **overrides}), path)
    return weights(path)


def first_model(recipe: PretrainRecipe) -> MaskedFrequencyModel:
    torch.manual_seed(seed_of(recipe.seed, Use.INITIAL))
    return MaskedFrequencyModel(recipe.model, recipe.loss)


def decays(name: str, parameter: Tensor) -> bool:
    """MFM spares the positions and the CLS token, beside norms and biases."""
    return parameter.ndim > 1 and not name.endswith((".bias", "pos_embed", "cls_token"))


def masked_frequency_loss(model: MaskedFrequencyModel, crops: Tensor, low: Tensor) -> Tensor:
    """An image after another: mask the centred spectrum, restore, compare the frequencies that were masked."""
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    disc = (y - 16) ** 2 + (x - 16) ** 2 < 4**2
    total, count = torch.zeros((), dtype=torch.float64), 0
    for crop, keeps_low in zip(crops, low.tolist(), strict=True):
        image = crop.double().permute(2, 0, 1) / 255
        kept = disc if keeps_low else ~disc
        spectrum = torch.fft.fftshift(torch.fft.fft2(image), dim=(-2, -1)) * kept
        corrupted = torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(-2, -1))).real.clamp(0, 1)
        (tokens,) = model.encoder(((corrupted - MEAN) / STD)[None])
        patches = F.linear(tokens[0], model.decoder[0].weight.flatten(1), model.decoder[0].bias)  # (16, 3 · 8 · 8)
        restored = patches.reshape(4, 4, 3, 8, 8).permute(2, 0, 3, 1, 4).reshape(3, 32, 32)
        difference = torch.fft.fft2(restored - (image - MEAN) / STD, norm="ortho")
        masked = torch.fft.fftshift(difference, dim=(-2, -1))[:, ~kept]
        total = total + (masked.abs() ** 2 + 1e-12).sqrt().sum()
        count += masked.numel()
    return total / count


@pytest.mark.parametrize("clip", [3.0, 0.5])
def test_steps_are_the_definition_written_out(clip: float, table: Path, tmp_path: Path) -> None:
    schedule = {"epochs": 1, "warmup_epochs": 0, "final_rate": 3e-4, "base_batch_size": None}
    recipe = pretrain_recipe(table, schedule=schedule, optimizer__clip=clip, **STEADY)
    data = read_unlabelled(recipe.data)
    images = TrainingImages(data.training, data.store, Augment(recipe.augmentation, 32), 1, recipe.seed)
    model = first_model(recipe).double()
    optimizer = AdamW(model.named_parameters(), lambda _: 1.0, decays, betas=(0.9, 0.95), eps=1e-4, weight_decay=0.05)
    losses, norms = [], []
    for step, chosen in enumerate(permutation(24, 0, 0).reshape(3, 8).tolist()):
        crops = collate([images[Ticket(0, index)] for index in chosen]).views[:, 0]
        torch.manual_seed(seed_of(0, Use.STEP, step, 0, 0))
        loss = masked_frequency_loss(model, crops, torch.rand(8) < 0.5)
        rate = 3e-4 + (1e-3 - 3e-4) * (1 + math.cos(math.pi * max(step - 1, 0) / 3)) / 2
        losses.append(loss.item())
        norms.append(optimizer.step(loss, lambda _, rate=rate: rate, clip))
    outcome = pretrain(recipe, tmp_path)
    assert largest_difference(weights(tmp_path), model.state_dict()) < 1e-6
    assert outcome.history[0]["train_loss"] == pytest.approx(sum(losses) / 3, abs=1e-6)
    assert outcome.history[0]["gradient_norm"] == pytest.approx(sum(norms) / 3, rel=1e-5)
    assert (max(norms) > clip) is (clip == 0.5)


def test_accumulated_micro_batches_are_one_step(table: Path, tmp_path: Path) -> None:
    """All low, since each micro-batch draws its own halves."""
    whole, parts = (short(table, tmp_path / str(n), accumulate=n, low_share=1, **STEADY) for n in (1, 4))
    assert largest_difference(whole, parts) < 1e-6


@pytest.mark.parametrize(("share", "keeps_low"), [(0, False), (1, True)])
def test_the_share_of_low_images(share: float, keeps_low: bool, table: Path, tmp_path: Path) -> None:
    still = {"optimizer__learning_rate": 0, "schedule__warmup_rate": 0, "schedule__final_rate": 0}
    recipe = pretrain_recipe(table, schedule__epochs=1, low_share=share, batch_size=24, **still)
    outcome = pretrain(recipe, tmp_path)
    data = read_unlabelled(recipe.data)
    images = TrainingImages(data.training, data.store, Augment(recipe.augmentation, 32), 1, recipe.seed)
    crops = collate([images[Ticket(0, index)] for index in range(24)]).views[:, 0]
    expected = masked_frequency_loss(first_model(recipe).double(), crops, torch.full((24,), keeps_low))
    assert outcome.history[0]["train_loss"] == pytest.approx(expected.item(), abs=1e-6)


def test_a_run_leaves_all_its_files(run: Path) -> None:
    names = {"recipe.yaml", "log.txt", "metrics.jsonl", "curves.png", "state.pt", "last.pth"}
    assert {path.name for path in run.iterdir()} == names
    assert [entry.keys() for entry in metrics_of(run)] == [
        {"epoch", "step", "learning_rate", "gradient_norm", "train_loss", "unreadable"}
    ] * 2


def test_the_weights_are_those_of_the_state_in_upstreams_names(run: Path) -> None:
    theirs, ours = published(run), weights(run)
    assert torch.equal(theirs["encoder.pos_embed"], ours["encoder.pos_embed"])
    assert torch.equal(theirs["decoder.0.weight"], ours["decoder.0.weight"])
    assert torch.equal(theirs["encoder.blocks.0.attn.q_bias"], ours["encoder.blocks.0.attn.qkv.bias"][:16])


def test_a_recipe_is_followed_to_the_same_weights(run: Path, table: Path, tmp_path: Path) -> None:
    pretrain(pretrain_recipe(table, data__workers=2), tmp_path / "again")
    pretrain(pretrain_recipe(table, seed=1), tmp_path / "other")
    assert same(published(tmp_path / "again"), published(run))
    assert (tmp_path / "again" / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    assert largest_difference(published(tmp_path / "other"), published(run)) > 0.01


def test_computing_activations_twice_changes_nothing(table: Path, tmp_path: Path) -> None:
    kept, again = (short(table, tmp_path / str(on), checkpointing=on, **STEADY) for on in (False, True))
    assert largest_difference(kept, again) < 1e-7


def test_bf16_trains_nearly_the_same(table: Path, tmp_path: Path) -> None:
    single, half = (short(table, tmp_path / name, precision=name, **STEADY) for name in ("fp32", "bf16"))
    assert 0 < largest_difference(single, half) < 5e-3


def test_a_run_is_neither_overwritten_nor_resumed_as_another(run: Path, table: Path) -> None:
    with pytest.raises(OutputError, match="--resume goes on with it"):
        pretrain(pretrain_recipe(table), run)
    with pytest.raises(RecipeError, match="was run with another low_share"):
        pretrain(pretrain_recipe(table, low_share=0.25), run, resume=True)
    assert len(pretrain(pretrain_recipe(table, data__workers=1), run, resume=True).history) == 2


def test_the_rates_of_a_run_are_those_of_its_batch(table: Path, tmp_path: Path) -> None:
    """A run scaled from 32 images to 8 is one with a quarter of each rate; the log and the recipe say which it had."""
    given = {"optimizer__learning_rate": 4e-3, "schedule__warmup_rate": 4e-6, "schedule__final_rate": 8e-6}
    scaled = short(table, tmp_path / "scaled", schedule__base_batch_size=32, **given)
    plain = short(table, tmp_path / "plain", **{name: value / 4 for name, value in given.items()})
    assert same(scaled, plain)
    said = "learning rates of steps of 8 images, scaled from 32: 1e-06 in the first, 0.001 at the peak, 2e-06 in the"
    assert said in (tmp_path / "scaled" / "log.txt").read_text()
    assert (tmp_path / "scaled" / "recipe.yaml").read_text().startswith(f"# {said}")


def test_a_run_from_before_rates_were_scaled_goes_on_when_told_not_to(run: Path, table: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "old")
    recipe = tmp_path / "old" / "recipe.yaml"
    content = yaml.safe_load(recipe.read_text())
    for key in ("base_batch_size", "name", "decay_epochs", "decay_rate", "milestones"):
        del content["pretrain"]["schedule"][key]
    for key in ("name", "momentum"):
        del content["pretrain"]["optimizer"][key]
    recipe.write_text(yaml.safe_dump(content))
    with pytest.raises(RecipeError, match=r"was run with another schedule\.base_batch_size"):
        pretrain(pretrain_recipe(table, schedule__base_batch_size=512), tmp_path / "old", resume=True)
    assert len(pretrain(pretrain_recipe(table), tmp_path / "old", resume=True).history) == 2

"""CO-SPY's training: each step against numbers of upstream's own code (`tests/golden/README.md`), and runs of `fit`."""

from collections.abc import Callable
from functools import cache, reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from spai_runtime.errors import UserError
from spai_runtime.images import Picture
from spai_runtime.scoring.batchers import encode
from spai_train.checkpoint import Card, CheckpointError, load_checkpoint, save_checkpoint
from spai_train.data.table import read_table
from spai_train.detectors.cospy import SPEC
from spai_train.detectors.cospy.config import CoSpyConfig
from spai_train.detectors.cospy.model import CoSpy
from spai_train.fit import FitRecipe, fit
from spai_train.models.vae import VAE, VAEConfig, load_vae
from spai_train.recipe import load_recipe
from spai_train.torch_engine import as_detector
from spai_train.training.losses import objective
from spai_train.training.optimizer import build_optimizer
from tests.support.cospy import FOLDER, write_end_to_end, write_folder, write_tower
from tests.support.cospy_steps import LABELS, SEED, sample, step_views
from tests.support.training import fit_recipe, resumed_run_ends_as_whole, same, write_labelled

SMALL_VAE = VAEConfig((32, 32, 64, 64), layers=1)
RECIPES = {"sd-v1_4": "cospy", "progan": "cospy-progan"}
VARIANTS = pytest.mark.parametrize("variant", [*RECIPES])


@cache
def upstreams(variant: str) -> dict[str, NDArray[np.float32]]:
    """`<step>/loss`, `<step>/gradient/<tensor>` and `<step>/after/<tensor>`, under our names."""
    with np.load(FOLDER / f"{variant}_steps.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., CoSpy]:
    """A new model of a variant with upstream's weights."""
    folder = tmp_path_factory.mktemp("cospy")
    for variant in RECIPES:
        write_tower(variant, folder / f"{variant}-tower.safetensors")
        write_folder(variant, folder / variant)
        write_end_to_end(variant, folder / f"{variant}-end2end.pth")

    @cache
    def loaded(variant: str, ending: str) -> CoSpy:
        return load_checkpoint(folder / f"{variant}{ending}", tower=folder / f"{variant}-tower.safetensors")

    return lambda variant, ending="": loaded(variant, ending).model()


def step(model: CoSpy, recipe: FitRecipe, *views: NDArray[np.uint8]) -> tuple[float, dict[str, Tensor]]:
    """One step of `fit` on one view an image; :returns: its loss, and the gradients.

    In fp64, since BatchNorm and ReLU make gradients of fp32 that depend on the order of sums in their third digit.
    """
    model.double().train()
    optimizer = build_optimizer(model, recipe.optimizer, 0)
    verdict = model(*(torch.from_numpy(part)[:, None] for part in views))
    labels = torch.tensor(LABELS, dtype=torch.float32)
    loss = objective(recipe.objective)(verdict.logit, verdict.embedding, labels, SEED) + model.penalty()
    loss.backward()
    gradients = {name: part.grad for name, part in model.named_parameters() if part.grad is not None}
    optimizer.step()
    return loss.item(), gradients


def compare(variant: str, key: str, loss: float, gradients: dict[str, Tensor], model: CoSpy) -> None:
    """Within 1e-5 of upstream's step: the loss, what it did to every tensor, and to no other one."""
    expected = upstreams(variant)
    assert loss == pytest.approx(float(expected[f"{key}/loss"]), abs=1e-5)
    theirs = {name.removeprefix(f"{key}/gradient/") for name in expected if name.startswith(f"{key}/gradient/")}
    assert gradients.keys() == theirs
    after = model.state_dict()
    for name in theirs:
        wanted, found = expected[f"{key}/gradient/{name}"], sample(gradients[name]).numpy()
        np.testing.assert_allclose(found, wanted, atol=1e-5 * max(1, np.abs(wanted).max()), err_msg=name)
    for name in (name.removeprefix(f"{key}/after/") for name in expected if name.startswith(f"{key}/after/")):
        np.testing.assert_allclose(
            sample(after[name]).numpy(), expected[f"{key}/after/{name}"], atol=1e-5, err_msg=name
        )


def begun(model: CoSpy, stage: str) -> CoSpy:
    """At the beginning of a stage, with the weights that it had in place of those that are drawn."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert SPEC.training is not None
    SPEC.training.stages[stage].begin(model)
    passing_on = "head.fusion." if stage != "fusion" else None
    kept_back = {name: tensor for name, tensor in before.items() if not (passing_on and name.startswith(passing_on))}
    model.load_state_dict(kept_back, strict=False)
    return model


@VARIANTS
@pytest.mark.parametrize("stage", ["semantic", "artifact", "fusion"])
def test_a_step_of_a_stage_is_upstreams(model_of: Callable[..., CoSpy], variant: str, stage: str) -> None:
    """Of the semantic branch of the variant with a VAE, two of four images are interpolated."""
    model, recipe = begun(model_of(variant), stage), load_recipe(RECIPES[variant], "fit", FitRecipe, {"stage": stage})
    sides = {"semantic": [SPEC.side(model.config)], "artifact": [224], "fusion": [SPEC.side(model.config), 224]}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if "num_batches" not in name}
    loss, gradients = step(model, recipe, *(step_views(side) for side in sides[stage]))
    compare(variant, stage, loss, gradients, model)
    learned = {"semantic": ("head.semantic.",), "fusion": ("head.fusion.",)}
    mine = learned.get(stage, ("head.artifact.", "encoder.artifacts."))
    for name, tensor in before.items():
        if not name.startswith(mine) or ".vae." in name:
            assert torch.equal(tensor, model.state_dict()[name]), name


@pytest.mark.parametrize("key", ["whole", "no_semantic", "no_artifact"])
def test_a_step_of_all_is_upstreams(model_of: Callable[..., CoSpy], key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In some steps one branch's logit is left out of the features that are joined."""
    variant = "progan"
    draws = iter({"whole": [0.31], "no_semantic": [0.29, 0.4], "no_artifact": [0.29, 0.6]}[key])
    monkeypatch.setattr("spai_train.detectors.cospy.model.torch.rand", lambda _: torch.tensor(next(draws)))
    model, recipe = model_of(variant, "-end2end.pth"), load_recipe(RECIPES[variant], "fit", FitRecipe)
    model.encoder.backbone.requires_grad_(False)
    loss, gradients = step(model, recipe, step_views(SPEC.side(model.config)))
    compare(variant, key, loss, gradients, model)
    assert next(draws, None) is None


# ----------------------------------------------------------------------------------------------------------------- fit


SMALL = {"width": 128, "depth": 2, "vae": None, "projection": 96, "end_to_end": False}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_tower("progan", folder / "tower.safetensors")
    return write_labelled(folder, train=4, validation=2)


def recipe_of(table: Path, stage: str | None = None, **overrides: Any) -> FitRecipe:
    """Of a stage of the variant without a VAE, in steps of two images."""
    small = {
        "data.tables": [str(table)],
        "data.workers": 0,
        "device": "cpu",
        "stage": stage,
        "model": SMALL,
        "batch_size": 2,
        "trackers": [],
        "schedule.epochs": 1,
    }
    return load_recipe("cospy-progan", "fit", FitRecipe, {**small, **overrides})


def test_stage_by_stage_to_a_detector(table: Path, tmp_path: Path) -> None:
    """Each leaves a detector that answers with what was trained so far, and what it does not train as it was."""
    fit(recipe_of(table, "semantic", pretrained=str(table.parent / "tower.safetensors")), tmp_path / "semantic")
    for before, stage in (("semantic", "artifact"), ("artifact", "fusion")):
        fit(recipe_of(table, stage, start=str(tmp_path / before / "last.safetensors")), tmp_path / stage)
    states = {
        stage: load_checkpoint(tmp_path / stage / "last.safetensors") for stage in ("semantic", "artifact", "fusion")
    }
    assert states["fusion"].config == CoSpyConfig(**SMALL)
    semantic, artifact, fused = (checkpoint.state for checkpoint in states.values())
    changed = {name for name, tensor in semantic.items() if not torch.equal(tensor, artifact[name])}
    assert {name.rpartition(".")[0] for name in changed} >= {"head.artifact", "encoder.artifacts.conv1", "head.fusion"}
    assert all(name.startswith(("head.artifact.", "head.fusion.", "encoder.artifacts.")) for name in changed)
    changed = {name for name, tensor in artifact.items() if not torch.equal(tensor, fused[name])}
    assert {name for name in changed if not name.endswith("num_batches_tracked")} == {
        "head.fusion.weight",
        "head.fusion.bias",
    }
    image = next(iter(read_table(table, "val"))).path
    for stage, branch in (("semantic", 0), ("artifact", 1)):
        model = states[stage].model()
        detector = as_detector(model)
        features = encode(detector.encoder, detector.manifest, Picture.open(image)).features
        part = (features[:, :96], features[:, 96:])[branch]
        with torch.inference_mode():
            expected = model.head.get_submodule(stage)(torch.from_numpy(part)).item()
        assert detector.score(image).logit == pytest.approx(expected, abs=1e-6)


def test_a_stage_can_be_gone_on_with(table: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "start.safetensors", CoSpy(CoSpyConfig(**SMALL)), Card("small"))
    recipe = recipe_of(table, "fusion", **{"schedule.epochs": 2, "start": str(tmp_path / "start.safetensors")})
    assert resumed_run_ends_as_whole(recipe, tmp_path)


def test_first_weights() -> None:
    """Those of upstream's code: He et al. over the outputs, N(0, 0.02) in linear layers, and nearly a sum."""
    for variant, (weight, bias) in {"sd-v1_4": (0.5, 2.0), "progan": (0.0, 0.0)}.items():
        config = CoSpyConfig(**SMALL) if variant == "progan" else CoSpyConfig(width=144, depth=1, vae=SMALL_VAE)
        model = CoSpy(config)
        training = SPEC.training
        assert training is not None
        training.stages["artifact"].begin(model)
        assert model.encoder.artifacts.conv1.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)
        assert model.head.artifact.weight.std().item() == pytest.approx(0.02, rel=0.2)
        training.stages["fusion"].begin(model)
        assert model.head.fusion.bias.item() == bias
        assert model.head.fusion.weight.tolist()[0] == pytest.approx([weight, weight], abs=0.1)
        assert [name for name, part in model.named_parameters() if part.requires_grad] == [
            "head.fusion.weight",
            "head.fusion.bias",
        ]


def test_a_vae_in_its_names_of_today_and_of_before(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae, today = VAE(SMALL_VAE), tmp_path / "today.safetensors"
    save_file(vae.state_dict(), today)
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {
        reduce(lambda word, names: word.replace(f".{names[0]}.", f".{names[1]}."), former.items(), name): tensor
        for name, tensor in vae.state_dict().items()
    }
    assert any(".proj_attn." in name for name in state)
    save_file(state, tmp_path / "before.safetensors")
    for path in (today, tmp_path / "before.safetensors"):
        other = VAE(SMALL_VAE)
        load_vae(other, path)
        assert same(other.state_dict(), vae.state_dict())
    with pytest.raises(CheckpointError, match=r"it is missing decoder\.up_blocks\.1\.resnets\.0\.conv_shortcut"):
        load_vae(VAE(VAEConfig((32, 64), layers=1)), today)


def test_what_is_missing_or_too_much_is_one_sentence(table: Path, tmp_path: Path) -> None:
    tower = str(table.parent / "tower.safetensors")
    with_vae = {"model": {"width": 144, "depth": 1, "vae": {"widths": [32]}}}
    for overrides, said in (
        ({"stage": "both"}, r"^there is no stage both: CO-SPY has the stages semantic, artifact, fusion$"),
        ({"stage": "semantic"}, r"starts from a frozen tower: give --pretrained FILE, ViT-L-14\.pt from "),
        ({"stage": "semantic", **with_vae}, r"--pretrained FILE, open_clip_model\.safetensors from .*SigLIP-384"),
        ({"pretrained": tower, **with_vae}, r"what a VAE does not give back: give --vae FILE, diffusion_pytorch_model"),
        ({"pretrained": tower, "vae": tower}, r"the variant of cospy with model\.vae=null has no VAE"),
        ({"pretrained": tower, "beside": {}}, "nothing draws views beside others here"),
        (
            {"stage": "fusion", "pretrained": tower, "model": {**SMALL, "end_to_end": True}},
            r"model\.end_to_end=true is trained end to end",
        ),
    ):
        with pytest.raises(UserError, match=said):
            fit(recipe_of(table, **overrides), tmp_path / "run")
    for overrides, said in (
        ({"stage": "semantic"}, r"^there is no stage semantic: SPAI has no stages$"),
        ({"vae": tower}, r"^SPAI has no VAE: leave vae out$"),
    ):
        with pytest.raises(UserError, match=said):
            fit(fit_recipe(table, batch_size=2, **overrides), tmp_path / "run")

"""The table of detectors: its rows keep the contract, and one that is not ours costs a module and a row."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize

from spai_export.choices import Precision
from spai_export.precision import cast
from spai_runtime.errors import UserError
from spai_runtime.images import Picture
from spai_runtime.views import CentreCrop, Resize
from spai_train.checkpoint import Card, CheckpointError, load_checkpoint, save_checkpoint, save_upstream
from spai_train.cli import main
from spai_train.data.table import Row
from spai_train.detectors import DETECTORS, find
from spai_train.evaluation.tsne import embed
from spai_train.torch_engine import as_detector, load_detector
from tests.support import resnet as resnet_module
from tests.support.resnet import SPEC, ResNet, ResNetConfig

KNOWN = ", ".join([*DETECTORS, "resnet18"])

# -------------------------------------------------------------------------------------------------------- the table


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more row, as whoever adds a detector writes it."""
    monkeypatch.setitem(DETECTORS, "resnet18", resnet_module.__name__)


@pytest.fixture
def resnet() -> ResNet:
    torch.manual_seed(0)
    model = ResNet(ResNetConfig())
    nn.init.normal_(model.head.fc.weight)
    return model.eval()


@pytest.fixture
def checkpoint(row: None, resnet: ResNet, tmp_path: Path) -> Path:  # noqa: ARG001
    path = tmp_path / "resnet.safetensors"
    save_checkpoint(path, resnet, Card(name="mine"))
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Noise, a tile of 64 pixels and some more."""
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 100, 3), np.uint8)).save(path)
    return path


@pytest.mark.parametrize("name", [*DETECTORS, "resnet18"])
@pytest.mark.usefixtures("row")
def test_a_row_keeps_the_contract(name: str) -> None:
    spec = find(name)
    config = spec.config()
    with torch.device("meta"):
        model = spec.build(config)
        features = torch.empty(2, 3, config.features)
        found = model.head(features)
        embedding = spec.embed(model.head, features)
    assert (spec.name, model.detector, model.config) == (name, name, config)
    logit, attention = found if spec.attention else (found, None)
    assert (logit.shape, len(embedding)) == ((2, 1), 2)
    assert attention is None or attention.shape == (2, 3)
    layout = spec.views(config).layout(500, 500)
    views = layout.stack(Picture.from_array(np.zeros((layout.height, layout.width, 3), np.uint8)))
    assert views.shape[1:] == (*spec.views(config).layout(500, 500).shape, 3)
    assert spec.training is None or views.shape[1:] == (spec.side(config), spec.side(config), 3)
    assert spec.code_licence and spec.weights_licence and spec.title
    recognising = [other for other in DETECTORS if find(other).recognises(model.state_dict())]
    assert recognising == ([name] if spec.read else [])  # of a layout that is ours alone the header says it
    if spec.training:
        assert model.get_submodule(spec.training.backbone)


def test_names_come_without_torch() -> None:
    code = "import sys, spai_train.detectors as table; print(*table.DETECTORS, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*DETECTORS, "False"]


@pytest.mark.usefixtures("row")
def test_a_name_that_is_not_in_the_table() -> None:
    with pytest.raises(UserError, match=f"^there is no detector sapi; known are: {KNOWN}$"):
        find("sapi")


# -------------------------------------------------------------------------------------------------------- checkpoints


def test_a_header_names_the_detector(checkpoint: Path, resnet: ResNet) -> None:
    found = load_checkpoint(checkpoint)
    assert (found.detector, found.config, found.card) == (SPEC, ResNetConfig(), Card(name="mine"))
    assert found.state.keys() == load_file(checkpoint).keys() == resnet.state_dict().keys()
    assert all(torch.equal(tensor, found.state[name]) for name, tensor in resnet.state_dict().items())
    assert load_checkpoint(checkpoint, "resnet18").sha256 == found.sha256


@pytest.mark.usefixtures("row")
def test_without_a_header_its_tensors_do(resnet: ResNet, tmp_path: Path) -> None:
    torch.save({"model": resnet.state_dict()}, tmp_path / "bare.pth")
    found = load_checkpoint(tmp_path / "bare.pth")
    assert (found.detector, found.card) == (SPEC, Card(name="bare"))
    del (state := resnet.state_dict())["head.fc.bias"]
    torch.save(state, tmp_path / "torn.pth")
    with pytest.raises(CheckpointError, match=r"it is missing head\.fc\.bias$"):
        load_checkpoint(tmp_path / "torn.pth")


def test_a_checkpoint_of_another_detector_says_which_it_is(checkpoint: Path, resnet: ResNet, tmp_path: Path) -> None:
    torch.save(resnet.state_dict(), tmp_path / "bare.pth")
    for path in (checkpoint, tmp_path / "bare.pth"):
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(path, "spai")
        assert str(caught.value) == f"{path} is a checkpoint of resnet18, not of spai: give --detector resnet18"


@pytest.mark.usefixtures("row")
def test_ours_is_not_taken_for_the_other(tiny_checkpoint: Path, tmp_path: Path) -> None:
    torch.save(load_file(tiny_checkpoint), tmp_path / "bare.pth")
    for path in (tiny_checkpoint, tmp_path / "bare.pth"):
        with pytest.raises(CheckpointError, match=r"is a checkpoint of spai, not of resnet18: give --detector spai$"):
            load_checkpoint(path, "resnet18")


@pytest.mark.usefixtures("row")
def test_a_header_without_a_name_is_spais(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Written before there was a table."""
    now = load_checkpoint(tiny_checkpoint)
    header = {"config": now.config.__dict__, "card": now.card.__dict__}
    save_file(now.state, tmp_path / "old.safetensors", {"spai": json.dumps(header)})
    before = load_checkpoint(tmp_path / "old.safetensors")
    assert (before.detector.name, before.config, before.card) == ("spai", now.config, now.card)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"detector": "aide"}, "was written by a newer version: it is a checkpoint of aide$"),
        ({"detector": ["spai"]}, r"has a header that cannot be read: Expected `str`, got `array` - at `\$.detector`$"),
        ("resnet18", "has a header that cannot be read: Expected `object`, got `str`$"),
        ({"detector": "resnet18", "config": {"depth": 18}}, "written by a newer version: its config has depth$"),
    ],
)
@pytest.mark.usefixtures("row")
def test_a_header_that_makes_no_sense(resnet: ResNet, tmp_path: Path, header: object, said: str) -> None:
    save_file(resnet.state_dict(), tmp_path / "x.safetensors", {"spai": json.dumps(header)})
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(tmp_path / "x.safetensors")


def test_tensors_that_two_detectors_know(
    checkpoint: Path, resnet: ResNet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    twin = type(sys)("twin")
    twin.SPEC = replace(SPEC, name="twin")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "twin", twin)
    monkeypatch.setitem(DETECTORS, "twin", "twin")
    torch.save(resnet.state_dict(), tmp_path / "bare.pth")
    with pytest.raises(CheckpointError, match=r"can be a checkpoint of resnet18 or twin: say which with --detector$"):
        load_checkpoint(tmp_path / "bare.pth")
    assert load_checkpoint(tmp_path / "bare.pth", "twin").detector.name == "twin"
    assert load_checkpoint(checkpoint).detector.name == "resnet18"


@pytest.mark.usefixtures("row")
def test_tensors_that_no_detector_knows(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.ones(1)}, tmp_path / "x.pth")
    with pytest.raises(
        CheckpointError,
        match=rf"x\.pth looks like no known detector \({KNOWN}\); for spai, the",
    ):
        load_checkpoint(tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"is missing encoder\.backbone\.bn1\.bias, .* and 117 more$"):
        load_checkpoint(tmp_path / "x.pth", "resnet18")


@pytest.mark.usefixtures("row")
def test_a_layout_that_is_ours_alone(resnet: ResNet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.save(resnet.state_dict(), tmp_path / "bare.pth")
    monkeypatch.setattr(resnet_module, "SPEC", replace(SPEC, read=None))
    with pytest.raises(CheckpointError, match=r"bare\.pth has no header, which says the dimensions of a ResNet-18$"):
        load_checkpoint(tmp_path / "bare.pth")
    with pytest.raises(CheckpointError, match=r"no layout of upstream's to write ResNet-18 in; write \.safetensors$"):
        save_upstream(tmp_path / "up.pth", resnet)
    assert not (tmp_path / "up.pth").exists()


# ------------------------------------------------------------------------------------------------------------ scoring


def features_of(image: Path, model: ResNet) -> Tensor:
    """Of the middle, by torchvision, timm and ImageNet's numbers: (1, 512)."""
    crop = center_crop(resize(Image.open(image), [80], InterpolationMode.BILINEAR), [64, 64])
    tile = (np.asarray(crop, np.float32) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    reference = timm.create_model("resnet18", num_classes=0).eval()
    reference.load_state_dict(model.encoder.backbone.state_dict())
    with torch.inference_mode():
        return reference(torch.from_numpy(tile).float().permute(2, 0, 1)[None])  # type: ignore[no-any-return]


def test_an_image_is_scored_in_torch(checkpoint: Path, resnet: ResNet, image: Path) -> None:
    weights = resnet.head.fc.weight.detach().double().numpy()[0]
    expected = float(weights @ features_of(image, resnet)[0].double().numpy()) + resnet.head.fc.bias.item()
    for detector in (as_detector(resnet), load_detector(checkpoint, "cpu", detector="resnet18")):
        score = detector.score(image)
        assert score.logit == pytest.approx(expected, abs=1e-5)
        assert score.score == pytest.approx(1 / (1 + np.exp(-expected)), abs=1e-6)
    manifest = load_detector(checkpoint, "cpu").manifest
    assert (manifest.name, manifest.detector, manifest.notice) == ("mine", "resnet18", SPEC.notice)
    assert (manifest.views, manifest.features) == (CentreCrop(64, Resize(80, filter="bilinear")), 512)


def test_it_is_mapped_by_its_features(checkpoint: Path, resnet: ResNet, image: Path) -> None:
    (found,) = embed(load_checkpoint(checkpoint), [Row(image.name, image, 0, "test", "noise")], "cpu")
    np.testing.assert_allclose(found.embedding, features_of(image, resnet)[0], atol=1e-5)


def test_it_is_put_into_half_precision(resnet: ResNet) -> None:
    views = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    copy = cast(SPEC, resnet.encoder, Precision.FP16)
    with torch.inference_mode():
        found, expected = copy(views), resnet.encoder(views)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().max() < 1e-2 * expected.abs().max()
    assert {parameter.dtype for parameter in copy.parameters()} == {torch.float16}
    assert {parameter.dtype for parameter in resnet.parameters()} == {torch.float32}


# ----------------------------------------------------------------------------------------------------------- commands


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Eight images to train on and four to validate, of which every other one is brighter."""
    rows, rng = ["image,class,split"], np.random.default_rng(0)
    for index in range(12):
        Image.fromarray(rng.integers(0, 128 + 127 * (index % 2), (48, 48, 3), np.uint8)).save(tmp_path / f"{index}.png")
        rows.append(f"{index}.png,{index % 2},{'train' if index < 8 else 'val'}")
    (tmp_path / "images.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "images.csv"


@pytest.fixture
def train(
    row: None,  # noqa: ARG001
    table: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str]]:
    """`spai-train fit` of the ResNet for an epoch, into `run/`; :returns: exit code and stderr."""
    recipe = {"model": {"side": 32}, "views": 1, "trackers": [], "optimizer": {"learning_rate": 1e-3}}
    (tmp_path / "resnet.yaml").write_text(yaml.safe_dump({"fit": recipe}))

    def call(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        fixed = ("fit", "--recipe", tmp_path / "resnet.yaml", "--data", table, "--output", tmp_path / "run")
        small = ("--epochs", 1, "--batch-size", 4, "--workers", 0, "--device", "cpu")
        code = main([str(argument) for argument in (*fixed, *small, *arguments)])
        return code, capsys.readouterr().err

    return call


def test_fit_trains_it(train: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    assert train("--detector", "resnet18")[0] == 0
    written = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["fit"]
    assert (written["detector"], written["name"]) == ("resnet18", "run"), "the name of the folder"
    assert written["model"] == {"resize": 80, "side": 32, "features": 512}
    found = load_checkpoint(tmp_path / "run" / "best.safetensors")
    assert (found.detector, found.config) == (SPEC, ResNetConfig(side=32))
    code, err = train("--detector", "resnet18", "--resume")
    assert (code, "resumed at step 2 of 2" in err) == (0, True)
    code, err = train("--resume", "--set", "model={}")
    assert (code, err.count("\n")) == (2, 1)
    assert "was run with another detector, model: resume with the same" in err


def test_a_frozen_backbone_is_the_one_that_the_row_names(
    train: Callable[..., tuple[int, str]], checkpoint: Path, tmp_path: Path
) -> None:
    assert train("--detector", "resnet18", "--start", checkpoint)[0] == 0
    before, after = load_file(checkpoint), load_file(tmp_path / "run" / "last.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name for name in moved if "running_" not in name and "num_batches" not in name} == {
        "head.fc.weight",
        "head.fc.bias",
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--detector", "sapi"], f"there is no detector sapi; known are: {KNOWN}"),
        (["--set", "detector=[spai]"], "Expected `str`, got `array` - at `$.detector`"),
        ([], "`model` in the section `fit` of {folder}/resnet.yaml has no key `side`; it has tile_size, "),
        (["--detector", "resnet18", "--set", "model.depth=18"], "has no key `depth`; it has resize, side, features"),
        (["--detector", "resnet18", "--set", "model.side=x"], "fit: Expected `int`, got `str` - at `$.model.side`"),
        (["--detector", "resnet18", "--set", "initial=whitened"], "resnet18 is trained from the weights it is built"),
        (["--detector", "resnet18", "--set", "checkpointing=true"], "the backbone of resnet18 keeps its activations"),
    ],
)
def test_what_will_not_do_is_one_sentence(
    train: Callable[..., tuple[int, str]], tmp_path: Path, arguments: list[str], said: str
) -> None:
    code, err = train(*arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert said.format(folder=tmp_path) in err
    assert not (tmp_path / "run").exists()


def test_a_detector_that_is_not_trained_here(
    train: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(resnet_module, "SPEC", replace(SPEC, training=None))
    said = "spai-train: fit cannot train ResNet-18: export a checkpoint that its authors published\n"
    assert train("--detector", "resnet18") == (2, said)
    capsys.readouterr()
    assert main(["fit", "--detector", "resnet18", "--output", str(tmp_path / "run")]) == 2  # nor has it a recipe
    assert capsys.readouterr().err == said


@pytest.mark.usefixtures("row")
def test_a_recipe_of_its_own_is_looked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--detector", "resnet18", "--output", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.startswith("spai-train: there is no recipe for resnet18: give one with --recipe, ")


def test_another_detector_is_not_gone_on_from(
    train: Callable[..., tuple[int, str]], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    code, err = train("--detector", "resnet18", "--start", tiny_checkpoint)
    assert (code, err.endswith(" is a checkpoint of spai, not of resnet18: give --detector spai\n")) == (2, True)
    assert not (tmp_path / "run").exists()


def test_commands_take_the_detector(
    checkpoint: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, capsys.readouterr().err

    other = f"spai-train: {checkpoint} is a checkpoint of resnet18, not of spai: give --detector resnet18\n"
    evaluate = ("evaluate", table, "--split", "val", "--output", tmp_path / "out", "--device", "cpu", "--resamples", 2)
    tsne = ("tsne", table, "--ckpt", checkpoint, "--output", tmp_path / "map", "--device", "cpu")
    convert = ("convert", checkpoint, tmp_path / "copy.safetensors")
    for command in ((*evaluate, "--ckpt", checkpoint), tsne, convert):
        assert call(*command, "--detector", "spai") == (2, other)
        assert call(*command, "--detector", "resnet18")[0] == call(*command)[0] == 0
    assert (tmp_path / "copy.safetensors").read_bytes() == checkpoint.read_bytes()
    assert len(json.loads((tmp_path / "out" / "metrics.json").read_text())) > 0
    code, err = call("convert", checkpoint, tmp_path / "copy.pth")
    assert (code, err.endswith("no layout of upstream's to write ResNet-18 in; write .safetensors\n")) == (2, True)
    code, err = call(*evaluate, "--engine", tmp_path, "--detector", "resnet18")
    assert (code, err.startswith("spai-train: --detector is for --ckpt; ")) == (2, True)

"""Community Forensics against timm's own ViT behind torchvision's own transforms, which is what upstream's code is."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import transforms

from spai_export.choices import Precision, Settings
from spai_export.directory import export
from spai_export.tensorrt.lint import check
from spai_runtime.manifest import Manifest
from spai_train.checkpoint import load_checkpoint, save_checkpoint, save_upstream
from spai_train.detectors.community_forensics import CommunityForensicsConfig
from spai_train.tensors import CheckpointError
from spai_train.torch_engine import as_detector
from tests.golden import FOLDER
from tests.support.commands import Run
from tests.support.images import pixels

SIZES = [(384, 384), (100, 300), (1, 1), (3, 60), (60, 1), (1000, 900), (441, 440), (300, 31)]  # height, width
MODELS = {  # name of timm's → the view's side and the shorter side before
    "vit_small_patch16_384": (384, 440),
    "vit_tiny_patch16_224": (224, 256),
    "vit_small_patch32_384": (384, 440),
}
DEPTHS = {"vit_small_patch16_384": 12}  # the published network has all its blocks


@cache
def upstreams(name: str) -> nn.Module:
    """The network with weights that give logits of all sizes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=1, depth=DEPTHS.get(name, 2))
        for name_of, parameter in model.named_parameters():
            mean = 1.0 if name_of.endswith(("norm1.weight", "norm2.weight")) else 0.0
            nn.init.normal_(parameter, mean, 0.08)
        nn.init.normal_(model.norm.weight, 1.0, 0.1)
        nn.init.normal_(model.head.weight, std=0.2)
    return model.eval()  # type: ignore[no-any-return]


def state_of(model: nn.Module, prefix: str = "vit.") -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor.clone() for name, tensor in model.state_dict().items()}


def expected(model: nn.Module, side: int, resize: int, image: NDArray[np.uint8]) -> float:
    """Upstream's `get_transform` in its mode `test`, and the logit."""
    steps = [transforms.Resize(resize), transforms.CenterCrop(side), transforms.ToTensor()]
    steps += [transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    with torch.inference_mode():
        return float(model(transforms.Compose(steps)(Image.fromarray(image))[None]))


@pytest.fixture(scope="module")
def images() -> list[NDArray[np.uint8]]:
    return [pixels(*size, seed=seed) for seed, size in enumerate(SIZES)]


@pytest.mark.parametrize("name", MODELS)
def test_the_logits_are_timms_and_torchvisions(name: str, images: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    model = upstreams(name)
    save_file(state_of(model), tmp_path / "model.safetensors")
    checkpoint = load_checkpoint(tmp_path / "model.safetensors")
    assert checkpoint.detector.name == "community-forensics"
    detector = as_detector(checkpoint.model())
    wanted = [expected(model, *MODELS[name], image) for image in images]
    assert np.ptp(wanted) > 0.05
    assert [detector.score(image).logit for image in images] == pytest.approx(wanted, abs=1e-4)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a checkpoint as upstream's training leaves it, in three precisions, each compared on images."""
    folder = tmp_path_factory.mktemp("community")
    state = state_of(upstreams("vit_tiny_patch16_224"), "_orig_mod.vit.")
    torch.save({"model": state, "optimizer": {}, "epoch": 3}, folder / "checkpoint_3.pt")
    settings = Settings((Precision.FP32, Precision.FP16, Precision.BF16), images=FOLDER / "images")
    return export(folder / "checkpoint_3.pt", folder / "model", settings).directory


@pytest.mark.parametrize(("precision", "within"), [("fp32", 1e-4), ("fp16", 0.02)])
def test_through_the_exported_graph_and_spai_run(
    images: list[NDArray[np.uint8]], exported: Path, tmp_path: Path, run: Run, precision: str, within: float
) -> None:
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    wanted = [expected(upstreams("vit_tiny_patch16_224"), 224, 256, image) for image in images]
    ran = run(*sorted(tmp_path.glob("*.png")), "--engine", exported, "--device", "cpu", "--precision", precision)
    logits = [float(line.split(",")[2]) for line in ran.stdout.splitlines()[1:]]
    assert (ran.code, len(logits)) == (0, len(images))
    assert logits == pytest.approx(wanted, abs=within)
    if precision == "fp16":
        assert logits != pytest.approx(wanted, abs=1e-5), "that is fp32"


def test_what_is_exported(exported: Path) -> None:
    manifest = Manifest.load(exported)
    assert manifest.detector == "community-forensics"
    assert check(exported / "encoder.onnx") == [], "attention in fp32 is plain"
    found = [(one.precision, one.passed, one.accuracy is None) for one in manifest.artifacts]
    assert found == [("fp32", True, True), ("fp16", True, False), ("bf16", True, False)]


def test_our_own_file_of_it(tmp_path: Path) -> None:
    save_file(state_of(upstreams("vit_tiny_patch16_224")), tmp_path / "model.safetensors")
    first = load_checkpoint(tmp_path / "model.safetensors")
    save_checkpoint(tmp_path / "ours.safetensors", first.model(), first.card)
    second = load_checkpoint(tmp_path / "ours.safetensors")
    assert second.config == first.config == CommunityForensicsConfig(224, 16, 192, 2, 256)
    assert all(torch.equal(tensor, second.state[name]) for name, tensor in first.state.items())


def test_upstreams_file_of_it(tmp_path: Path) -> None:
    model = upstreams("vit_tiny_patch16_224")
    save_file(state_of(model), tmp_path / "model.safetensors")
    save_upstream(tmp_path / "theirs.pth", load_checkpoint(tmp_path / "model.safetensors").model())
    written = torch.load(tmp_path / "theirs.pth", weights_only=True)["model"]
    assert written.keys() == state_of(model).keys()
    assert all(torch.equal(tensor, written[name]) for name, tensor in state_of(model).items())


def without_head(state: dict[str, Tensor]) -> None:
    del state["vit.head.bias"]


def of_256(state: dict[str, Tensor]) -> None:
    state["vit.pos_embed"] = torch.zeros(1, 257, 192)


def without_positions(state: dict[str, Tensor]) -> None:
    del state["vit.pos_embed"]


def of_one_axis(state: dict[str, Tensor]) -> None:
    state["vit.patch_embed.proj.weight"] = torch.zeros(5)


def of_nothing(state: dict[str, Tensor]) -> None:
    state["vit.pos_embed"] = torch.zeros(1, 0, 192)


def of_no_blocks(state: dict[str, Tensor]) -> None:
    for name in [name for name in state if ".blocks." in name]:
        del state[name]


def of_a_head_without_axes(state: dict[str, Tensor]) -> None:
    state["vit.head.weight"] = torch.tensor(1.0)


def of_a_width_without_heads(state: dict[str, Tensor]) -> None:
    state["vit.patch_embed.proj.weight"] = torch.zeros(100, 3, 16, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_head, "it is missing head.linear.bias"),
        (of_256, "looks at views of 256 pixels; published are those of 384 and 224"),
        (without_positions, "it is missing encoder.backbone.pos_embed"),
        (of_nothing, r"encoder.backbone.pos_embed has the shape \(1, 0, 192\)"),
        (of_one_axis, r"encoder.backbone.patch_embed.proj.weight has the shape \(5,\)"),
        (of_a_head_without_axes, "looks like no known detector"),
        (of_no_blocks, r"makes no model: Expected `int` >= 1 - at `\$\.depth`"),
        (of_a_width_without_heads, "heads of 64 channels do not divide it"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, change: Callable[[dict[str, Tensor]], None], message: str) -> None:
    state = state_of(upstreams("vit_tiny_patch16_224"))
    change(state)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "model.safetensors")


def test_another_detectors_checkpoint_says_which_it_is(tmp_path: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="is a checkpoint of spai, not of community-forensics"):
        load_checkpoint(tiny_checkpoint, "community-forensics")
    save_file(state_of(upstreams("vit_tiny_patch16_224")), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="is a checkpoint of community-forensics, not of spai"):
        load_checkpoint(tmp_path / "model.safetensors", "spai")

"""CO-SPY's two variants, fused and end to end, against upstream's numbers, which `tests/golden/README.md` describes."""

import csv
from collections.abc import Callable
from functools import cache
from io import StringIO
from pathlib import Path
from shutil import copy
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import CenterCrop, Compose
from torchvision.transforms import Resize as TorchResize

from spai_export import verify
from spai_export.choices import Attention, Precision, Settings
from spai_export.directory import write
from spai_export.onnx import export_head
from spai_export.source import Source
from spai_export.tensorrt.lint import check
from spai_runtime import Detector
from spai_runtime.engines.base import Contract
from spai_runtime.engines.onnxruntime import OnnxEngine
from spai_runtime.images import Picture
from spai_runtime.manifest import Manifest
from spai_train.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from spai_train.commands.convert import run as convert
from spai_train.detectors.cospy import views
from spai_train.detectors.cospy.config import CoSpyConfig
from spai_train.models.vae import VAEConfig
from spai_train.torch_engine import as_detector
from tests.golden import IMAGES
from tests.support.commands import spawn
from tests.support.cospy import FOLDER, write_end_to_end, write_folder, write_tower

SMALL_VAE = VAEConfig((32, 32, 64, 64), layers=1)
CONFIGS = {
    "sd-v1_4": CoSpyConfig(width=144, depth=2, vae=SMALL_VAE),
    "progan": CoSpyConfig(width=128, depth=2, vae=None, projection=96),
}
HALVES = {"sd-v1_4": [], "progan": ["fp16", "bf16"]}  # of the graphs beside those of fp32
VARIANTS = pytest.mark.parametrize("variant", [*CONFIGS])


@cache
def number(variant: str, key: str) -> NDArray[np.float32]:
    """What upstream's code says of IMAGES."""
    with np.load(FOLDER / f"{variant}_expected.npz") as arrays:
        return arrays[key]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each variant, with its tower and what was trained end to end beside it."""
    folder = tmp_path_factory.mktemp("cospy")
    for variant in CONFIGS:
        write_folder(variant, folder / variant)
        write_tower(variant, folder / f"{variant}-tower.safetensors")
        write_end_to_end(variant, folder / f"{variant}-end2end.pth")
    return folder


@pytest.fixture(scope="module")
def export(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Variant → the exported directory of the fused detector. Few views are compared; a VAE takes its time."""
    few = tmp_path_factory.mktemp("few")
    copy(IMAGES[1], few)

    @cache
    def exported(variant: str) -> Path:
        settings = Settings((Precision.FP32, *map(Precision, HALVES[variant])), Attention.PLAIN, images=few)
        source = Source.load(files / variant, settings, tower=files / f"{variant}-tower.safetensors")
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(verify, "BATCH_SIZES", (1, 3))
            patched.setattr(verify, "IMAGE_VIEWS", (1, 2))
            return write(source, few.parent / f"exported-{variant}").directory

    return exported


@VARIANTS
def test_fused_in_torch(files: Path, variant: str) -> None:
    checkpoint = load_checkpoint(files / variant, tower=files / f"{variant}-tower.safetensors")
    detector = as_detector(checkpoint.model())
    expected = number(variant, "fusion")
    assert (checkpoint.detector.name, checkpoint.card.name) == ("cospy", variant)
    assert checkpoint.config == CONFIGS[variant]
    assert np.std(expected) > 1, "or any answer would do"
    assert [detector.score(path).logit for path in IMAGES] == pytest.approx(expected, abs=1e-4)


def crop(variant: str, path: Path) -> NDArray[np.uint8]:
    """The view that the detector looks at, (1, S, S, 3)."""
    policy, picture = views(CONFIGS[variant]), Picture.open(path)
    layout = policy.layout(picture.height, picture.width)
    assert policy.resize
    return layout.stack(picture.resized(layout.height, layout.width, policy.resize.filter))


@pytest.mark.parametrize(("variant", "shorter", "side"), [("sd-v1_4", 384, 384), ("progan", 256, 224)])
def test_views_are_torchvisions(variant: str, shorter: int, side: int) -> None:
    for path in IMAGES:
        with Image.open(path) as image:
            expected = Compose([TorchResize(shorter), CenterCrop(side)])(image.convert("RGB"))
        np.testing.assert_array_equal(crop(variant, path), np.asarray(expected)[None])


def test_a_flat_image_keeps_its_features(files: Path, export: Callable[[str], Path]) -> None:
    """Statistics of nearly constant maps that are not taken with care move them by 1% of the largest."""
    model = load_checkpoint(files / "sd-v1_4", tower=files / "sd-v1_4-tower.safetensors").model()
    view, expected = crop("sd-v1_4", IMAGES[5]), number("sd-v1_4", "artifact")[5]
    with torch.inference_mode():
        in_torch = model.encoder.artifacts(torch.from_numpy(view)).numpy()
    contract = Contract.encoder((384, 384), model.config.features)
    (in_graph,) = OnnxEngine(export("sd-v1_4") / "encoder.onnx", contract).run(view)
    for found in (in_torch, in_graph[:, -expected.size :]):
        np.testing.assert_allclose(found[0], expected, atol=4e-6 * np.abs(expected).max(), rtol=0)


@VARIANTS
def test_end_to_end_in_torch(files: Path, variant: str) -> None:
    """On what upstream's encoder gives, for it is that of the fused detector."""
    tower = files / f"{variant}-tower.safetensors"
    joined, fused = (
        load_checkpoint(files / f"{variant}-end2end.pth", tower=tower),
        load_checkpoint(files / variant, tower=tower),
    )
    assert joined.config.end_to_end
    assert all(torch.equal(tensor, joined.state[name]) for name, tensor in fused.state.items() if "encoder" in name)
    features = torch.from_numpy(np.concatenate((number(variant, "semantic"), number(variant, "artifact")), axis=1))
    with torch.inference_mode():
        logits = joined.model().head(features[:, None])[:, 0]
    expected = number(variant, "end2end")
    assert np.ptp(expected) > 1
    assert logits.tolist() == pytest.approx(expected, abs=1e-4)


def test_of_several_views_the_logits_are_averaged(files: Path) -> None:
    head = load_checkpoint(files / "progan-end2end.pth", tower=files / "progan-tower.safetensors").model().head
    features = torch.randn(2, 3, 96 + 512, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        each = torch.stack([head(features[:, view : view + 1]) for view in range(3)])
        torch.testing.assert_close(head(features), each.mean(dim=0))


@VARIANTS
def test_through_the_exported_graphs_and_spai_run(export: Callable[[str], Path], variant: str) -> None:
    directory = export(variant)
    found = {one.precision: one.accuracy and one.accuracy.passed for one in Manifest.load(directory).artifacts}
    assert found == {"fp32": None, **dict.fromkeys(HALVES[variant], True)}
    for path in directory.glob("*.onnx"):
        assert check(path) == []
    ran = spawn(*IMAGES[:3], "--engine", directory / "encoder.onnx", "--device", "cpu", "--precision", "fp32")
    assert (ran.code, ran.stderr) == (0, "")
    rows = list(csv.DictReader(StringIO(ran.stdout)))
    assert [float(row["logit"]) for row in rows] == pytest.approx(number(variant, "fusion")[:3], abs=1e-4)


@VARIANTS
def test_end_to_end_through_its_graphs(
    files: Path, export: Callable[[str], Path], variant: str, tmp_path: Path
) -> None:
    """Its encoder is that of the fused detector, as `test_end_to_end_in_torch` finds."""
    model = load_checkpoint(files / f"{variant}-end2end.pth", tower=files / f"{variant}-tower.safetensors").model()
    export_head(model.head, model.config.features, tmp_path / "head.onnx", attention=False)
    assert check(tmp_path / "head.onnx") == []
    head = OnnxEngine(tmp_path / "head.onnx", Contract.head(model.config.features, attention=False))
    with Detector.load(export(variant), device="cpu", precision="fp32") as fused:
        joined = Detector(fused.manifest, fused.encoder, head, fused.threshold)
        logits = [joined.score(path).logit for path in IMAGES[:3]]
    assert logits == pytest.approx(number(variant, "end2end")[:3], abs=1e-4)


@VARIANTS
def test_half_precision_is_for_the_tower_alone(files: Path, variant: str) -> None:
    checkpoint = load_checkpoint(files / variant, tower=files / f"{variant}-tower.safetensors")
    encoder = checkpoint.model().encoder
    checkpoint.detector.halve(encoder, torch.float16)
    kinds = {name: tensor.dtype for name, tensor in encoder.named_parameters()}
    assert {kind for name, kind in kinds.items() if name.startswith("artifacts.")} == {torch.float32}
    assert torch.float16 in kinds.values()


# --------------------------------------------------------------------------------------------------------------- files


def as_trained(folder: Path, to: Path) -> Path:
    """The files of a folder, where upstream's training writes them."""
    for part in ("semantic", "artifact", "fusion"):
        (to / part).mkdir(parents=True)
        (to / part / "best_model.pth").symlink_to(folder / f"{part}_weights.pth")
    return to


def test_a_folder_as_upstreams_training_writes_it(files: Path, tmp_path: Path) -> None:
    as_trained(files / "progan", tmp_path / "progan")
    tower = files / "progan-tower.safetensors"
    found, wanted = (load_checkpoint(folder / "progan", tower=tower) for folder in (tmp_path, files))
    assert (found.config, found.sha256) == (wanted.config, wanted.sha256)
    assert all(torch.equal(tensor, found.state[name]) for name, tensor in wanted.state.items())


def test_a_folder_with_other_content_has_another_digest(files: Path, tmp_path: Path) -> None:
    write_folder("progan", tmp_path)
    bias = torch.load(tmp_path / "fusion_weights.pth")
    torch.save({**bias, "fc.bias": bias["fc.bias"] + 1}, tmp_path / "fusion_weights.pth")
    tower = files / "progan-tower.safetensors"
    assert load_checkpoint(tmp_path, tower=tower).sha256 != load_checkpoint(files / "progan", tower=tower).sha256


def test_a_folder_that_lacks_a_file(files: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"^{tmp_path} is a folder without semantic_weights\.pth of CO-SPY: "):
        load_checkpoint(tmp_path)
    (tmp_path / "semantic_weights.pth").symlink_to(files / "progan" / "semantic_weights.pth")
    with pytest.raises(CheckpointError, match=r"is a folder without artifact_weights\.pth of CO-SPY: "):
        load_checkpoint(tmp_path, "cospy")
    with pytest.raises(CheckpointError, match=r"is a folder, and a RINE is a file: "):
        load_checkpoint(files / "progan", "rine")


@pytest.mark.parametrize("part", ["semantic", "artifact", "fusion"])
def test_one_file_of_a_folder(files: Path, part: str, tmp_path: Path) -> None:
    """All but the artifact branch's have the names of a ClipDet's tensors."""
    alone, trained = tmp_path / f"{part}_weights.pth", as_trained(files / "sd-v1_4", tmp_path / "trained")
    alone.symlink_to(files / "sd-v1_4" / alone.name)
    for path, names in ((alone, r"semantic_weights\.pth, .*"), (trained / part / "best_model.pth", "semantic/.*")):
        for detector in (None, "cospy"):
            with pytest.raises(CheckpointError, match=f"is only one of the files of a CO-SPY: .* that holds {names}$"):
                load_checkpoint(path, detector)


def test_files_with_the_names_of_a_part_are_of_another_detector(files: Path, tmp_path: Path) -> None:
    """Where the detector is named, or the other parts are not there."""
    (tmp_path / "semantic").mkdir()
    lone, named = tmp_path / "semantic" / "best_model.pth", tmp_path / "semantic_weights.pth"
    for path in (lone, named):
        path.symlink_to(files / "progan" / "semantic_weights.pth")
    for path, detector in ((lone, None), (named, "clipdet")):
        with pytest.raises(CheckpointError, match="is the part of ClipDet that was trained"):
            load_checkpoint(path, detector)


def test_a_fusion_under_any_name_is_no_clipdet(files: Path, tmp_path: Path) -> None:
    (tmp_path / "x.pth").symlink_to(files / "progan" / "fusion_weights.pth")
    with pytest.raises(CheckpointError, match="looks like no known detector"):
        load_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("variant", "tower"),
    [("sd-v1_4", "open_clip_model.safetensors from .*SigLIP-384"), ("progan", r"ViT-L-14\.pt from .*openai")],
)
def test_a_missing_tower_is_that_of_the_variant(files: Path, variant: str, tower: str) -> None:
    with pytest.raises(CheckpointError, match=f"without its tower: get {tower}"):
        load_checkpoint(files / variant)


def test_a_tower_in_the_folder_is_found(files: Path, tmp_path: Path) -> None:
    for path in (files / "sd-v1_4").iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "open_clip_model.safetensors").symlink_to(files / "sd-v1_4-tower.safetensors")
    found = load_checkpoint(tmp_path).tower
    assert found is not None
    assert found.path == tmp_path / "open_clip_model.safetensors"


@VARIANTS
def test_our_own_file_of_it(files: Path, variant: str, tmp_path: Path) -> None:
    first = load_checkpoint(files / variant, tower=files / f"{variant}-tower.safetensors")
    save_checkpoint(tmp_path / "ours.safetensors", first.model(), first.card)
    save_file(first.state, tmp_path / "bare.safetensors")
    for name in ("ours.safetensors", "bare.safetensors"):
        second = load_checkpoint(tmp_path / name)
        assert (second.detector.name, second.config) == ("cospy", first.config)
        assert all(torch.equal(tensor, second.state[name]) for name, tensor in first.state.items())


@VARIANTS
@pytest.mark.parametrize("name", ["{}", "{}-end2end.pth"])
def test_converted_back_to_upstreams_files(files: Path, variant: str, name: str, tmp_path: Path) -> None:
    """The very files again, but for a layer of the ProGAN variant that nothing runs, which strict loading wants."""
    theirs, tower = files / name.format(variant), files / f"{variant}-tower.safetensors"
    ours, back = tmp_path / "ours.safetensors", tmp_path / theirs.name
    assert convert(theirs, ours, tower=tower) == convert(ours, back) == 0
    suffixes = [f"{part}_weights.pth" for part in ("semantic", "artifact", "fusion")] if theirs.is_dir() else [""]
    for suffix in suffixes:
        first, second = (flat(torch.load(path / suffix, weights_only=True)) for path in (theirs, back))
        assert {key: tensor.shape for key, tensor in first.items()} == {key: t.shape for key, t in second.items()}
        changed = {key for key, tensor in first.items() if not torch.equal(tensor, second[key])}
        assert all(".fc1." in key for key in changed)
    with pytest.raises(
        CheckpointError, match=r"upstream has (several|one) files? of this CO-SPY, so name (a folder|it \.pth)"
    ):
        convert(ours, tmp_path / "x.pth" if theirs.is_dir() else tmp_path / "x")


def flat(content: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Tensors by the names of what holds them."""
    nested = [(f"{key}.", value) for key, value in content.items() if isinstance(value, dict)]
    tensors = {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}
    return tensors | {prefix + key: tensor for prefix, below in nested for key, tensor in flat(below).items()}


def test_tensors_that_say_nothing_of_the_network(files: Path, tmp_path: Path) -> None:
    tower = files / "sd-v1_4-tower.safetensors"
    first = load_checkpoint(files / "sd-v1_4", tower=tower).state
    block = "encoder.artifacts.residual.vae.encoder.down_blocks.{}.resnets.0.conv1.weight"
    for change, said in (
        ({block.format(999): torch.ones(32, 32, 3, 3)}, "is missing .*down_blocks.4.resnets"),
        ({block.format("9" * 5000): torch.ones(32, 32, 3, 3)}, "has no use for "),
        ({block.format(0): torch.ones(33, 32, 3, 3)}, "configuration makes no model"),
        ({"encoder.backbone.patch_embed.proj.weight": torch.ones(145, 3, 14, 14)}, "configuration makes no model"),
    ):
        save_file({**first, **change}, tmp_path / "bad.safetensors")
        with pytest.raises(CheckpointError, match=said):
            load_checkpoint(tmp_path / "bad.safetensors")

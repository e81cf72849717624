"""DDA against the logits of upstream's own code, which `tests/golden/README.md` describes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from spai_export.choices import Attention, Precision, Settings
from spai_export.directory import export
from spai_export.tensorrt.lint import check
from spai_runtime import Detector
from spai_runtime.manifest import Manifest
from spai_train.checkpoint import Card, load_checkpoint, save_checkpoint, save_upstream
from spai_train.detectors.dda import DDAConfig
from spai_train.tensors import CheckpointError
from spai_train.torch_engine import as_detector
from tests.golden import FOLDER, IMAGES
from tests.support.commands import spawn

ADAPTED = "base_model.model.blocks.0.attn.qkv"
State = dict[str, Tensor]


def golden() -> tuple[State, list[float]]:
    """Upstream's tensors, under its names, and its logits of IMAGES."""
    with np.load(FOLDER / "dda_small.npz") as arrays:
        names = [name for name in arrays if name.startswith("model/")]
        state = {name.removeprefix("model/"): torch.from_numpy(arrays[name]) / 16 for name in names}
        return state, arrays["logits"].tolist()


STATE, LOGITS = golden()


def written(state: State, path: Path) -> Path:
    """What upstream's training writes."""
    torch.save({"model": state, "optimizer": {"state": {}, "param_groups": []}, "total_steps": 7}, path)
    return path


def without_lora(state: State) -> State:
    """The plain fine-tune that computes the same, by a formula of NumPy's."""
    plain = {name.replace(".original_layer", ""): tensor for name, tensor in state.items() if ".lora." not in name}
    for name in [name for name in state if name.endswith("lora_A")]:
        down, up = state[name].double().numpy(), state[name.replace("lora_A", "lora_B")].double().numpy()
        weight = name.replace("lora.lora_A", "weight")
        plain[weight] = plain[weight] + torch.from_numpy(np.einsum("or,ri->oi", up, down) / 8).float()
    return plain


def bare_names(state: State) -> State:
    """As upstream's model without LoRA has them."""
    return {name.removeprefix("base_model."): tensor for name, tensor in without_lora(state).items()}


def parallel(state: State) -> State:
    return {f"module.{name}": tensor for name, tensor in state.items()}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(STATE, tmp_path_factory.mktemp("dda") / "ckpt.pth")


def found(path: Path, images: int = len(IMAGES)) -> list[float]:
    detector = as_detector(load_checkpoint(path).model())
    return [detector.score(image).logit for image in IMAGES[:images]]


def test_the_logits_are_upstreams(checkpoint: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    assert (loaded.detector.name, loaded.config) == ("dda", DDAConfig(width=128, depth=2))
    assert np.ptp(LOGITS) > 2
    assert found(checkpoint) == pytest.approx(LOGITS, abs=1e-4)


@pytest.mark.parametrize("layout", [without_lora, bare_names, parallel])
def test_other_layouts(layout: Callable[[State], State], tmp_path: Path) -> None:
    assert found(written(layout(STATE), tmp_path / "x.pth"), 2) == pytest.approx(LOGITS[:2], abs=1e-4)


def test_through_the_exported_graphs_and_spai_run(checkpoint: Path, tmp_path: Path) -> None:
    precisions = (Precision.FP32, Precision.FP16, Precision.BF16)
    settings = Settings(precisions, Attention.PLAIN, images=IMAGES[0].parent)
    exported = export(checkpoint, tmp_path / "model", settings).directory
    assert [(it.precision, it.accuracy and it.accuracy.passed) for it in Manifest.load(exported).artifacts] == [
        ("fp32", None),
        ("fp16", True),
        ("bf16", True),
    ]
    for precision in ("", ".fp16", ".bf16"):
        assert check(exported / f"encoder{precision}.onnx") == []
    with Detector.load(exported / "encoder.onnx", device="cpu") as detector:
        assert [detector.score(path).logit for path in IMAGES] == pytest.approx(LOGITS, abs=1e-4)
    ran = spawn(*IMAGES, "--engine", exported / "encoder.onnx", "--device", "cpu", "--precision", "fp32")
    assert (ran.code, ran.stderr) == (0, "")
    logits = [float(line.split(",")[2]) for line in ran.stdout.splitlines()[1:]]
    assert logits == pytest.approx(LOGITS, abs=1e-4)


def test_our_own_file_of_it(checkpoint: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "ours.safetensors", load_checkpoint(checkpoint).model(), Card("mine"))
    torch.save(load_file(tmp_path / "ours.safetensors"), tmp_path / "bare.pth")
    for name in ("ours.safetensors", "bare.pth"):
        loaded = load_checkpoint(tmp_path / name)
        assert (loaded.detector.name, loaded.config) == ("dda", DDAConfig(width=128, depth=2))
        assert loaded.state["encoder.backbone.pos_embed"].shape == (1, 1 + 24 * 24, 128)
        assert found(tmp_path / name, 2) == pytest.approx(LOGITS[:2], abs=1e-4)


def test_upstreams_file_of_it(checkpoint: Path, tmp_path: Path) -> None:
    save_upstream(tmp_path / "theirs.pth", load_checkpoint(checkpoint).model())
    theirs = torch.load(tmp_path / "theirs.pth", weights_only=True)["model"]
    assert {name: tensor.shape for name, tensor in theirs.items()} == {name: t.shape for name, t in STATE.items()}
    assert not any(tensor.any() for name, tensor in theirs.items() if name.endswith("lora_B"))
    assert all(tensor.any() for name, tensor in theirs.items() if name.endswith("lora_A"))  # or it would never learn
    assert found(tmp_path / "theirs.pth", 2) == pytest.approx(LOGITS[:2], abs=1e-4)


def test_upstream_has_no_other_views(checkpoint: Path, tmp_path: Path) -> None:
    bare = dict(load_checkpoint(checkpoint).state)
    bare["encoder.backbone.pos_embed"] = torch.zeros(1, 1 + 16 * 16, 128)
    torch.save(bare, tmp_path / "bare.pth")
    smaller = load_checkpoint(tmp_path / "bare.pth")
    assert smaller.config == DDAConfig(side=224, width=128, depth=2)
    with pytest.raises(CheckpointError, match=r"^upstream looks at 336 pixels in patches of 14; write \.safetensors"):
        save_upstream(tmp_path / "theirs.pth", smaller.model())


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("base_model.fc.weight", None, r"looks like no known detector \(.*; for spai, "),
        ("base_model.fc.bias", None, "it is missing head.linear.bias$"),
        ("base_model.fc.weight", torch.zeros(2, 128), "it has other shapes in head.linear.weight$"),
        (f"{ADAPTED}.lora.lora_A", None, r"missing encoder\.backbone\.blocks\.0\.attn\.qkv\.lora\.lora_A$"),
        (f"{ADAPTED}.lora.lora_A", torch.zeros(8), r"lora_A has the shape \(8,\)$"),
        (f"{ADAPTED}.lora.lora_A", torch.zeros(4, 128), "other shapes in .*lora_A, .*lora_B$"),
        (f"{ADAPTED}.lora.lora_B", torch.zeros(100, 8), "other shapes in .*lora_A, .*lora_B$"),
        (f"{ADAPTED}.lora.lora_A", torch.zeros(8, 128, dtype=torch.int32), "lora_A is int32, no real numbers$"),
        (f"{ADAPTED}.lora.lora_B", torch.full((384, 8), torch.inf), "lora_B holds numbers that are not finite$"),
        (f"{ADAPTED}.original_layer.weight", None, r"missing encoder\.backbone\.blocks\.0\.attn\.qkv\.weight$"),
        (f"{ADAPTED}.original_layer.bias", None, r"missing encoder\.backbone\.blocks\.0\.attn\.qkv\.bias$"),
        ("base_model.model.norm.weight", None, r"missing encoder\.backbone\.norm\.weight$"),
        ("base_model.model.pos_embed", None, r"missing encoder\.backbone\.pos_embed$"),
        ("base_model.model.pos_embed", torch.zeros(1, 1371, 128), "positions are no square of numbers beside CLS: "),
        ("base_model.model.pos_embed", torch.zeros(2, 1370, 128), "positions are no square of numbers beside CLS: "),
        ("base_model.model.pos_embed", torch.zeros(1, 1, 128), "positions are no square of numbers beside CLS: "),
        ("base_model.model.pos_embed", torch.zeros(1, 10, 128, dtype=torch.int8), "positions are no square of numbers"),
        ("base_model.model.register_tokens", torch.zeros(1, 4, 128), "no use for encoder.backbone.register_tokens$"),
        ("base_model.model.patch_embed.proj.weight", torch.zeros(128, 3, 1, 1), "has patches of 1 pixels; DINOv2's"),
        ("base_model.model.patch_embed.proj.weight", torch.zeros(100, 3, 14, 14), "makes no model: patches of 14"),
    ],
)
def test_what_does_not_fit(name: str, tensor: Tensor | None, message: str, tmp_path: Path) -> None:
    state = {key: value for key, value in {**STATE, name: tensor}.items() if value is not None}
    path = written(state, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_another_detectors_checkpoint_says_which_it_is(checkpoint: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="is a checkpoint of dda, not of community-forensics"):
        load_checkpoint(checkpoint, "community-forensics")
    with pytest.raises(CheckpointError, match="is a checkpoint of spai, not of dda: give --detector spai"):
        load_checkpoint(tiny_checkpoint, "dda")

"""Probes as detectors: timm's own models behind timm's own transforms give the same; a header builds nothing else."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spai_export.choices import Attention, Precision, Settings
from spai_export.directory import export
from spai_export.onnx import FUSED_OPSET, export_encoder
from spai_export.precision import cast
from spai_export.tensorrt.lint import check
from spai_runtime import Detector
from spai_runtime.manifest import Manifest
from spai_runtime.views import CentreCrop, Resize
from spai_train.checkpoint import Card, CheckpointError, load_checkpoint, save_checkpoint
from spai_train.detectors.probe import SPEC, Probe, ProbeConfig, first_weights
from spai_train.detectors.spec import Start
from spai_train.models.registered import BackboneError, preprocessing, with_tag
from spai_train.torch_engine import as_detector
from tests.support.commands import Run
from tests.support.images import pixels
from tests.support.probing import backbone, features_of, weights_of

SIZES = [(160, 168), (100, 300), (1, 1), (3, 500), (500, 1), (700, 900), (169, 168)]  # height, width
SMALL = ("test_resnet", "test_convnext", "test_vit", "test_efficientnet", "test_vit_relpos")


@pytest.fixture(scope="module")
def images() -> list[NDArray[np.uint8]]:
    return [pixels(*size, seed=seed) for seed, size in enumerate(SIZES)]


def probe(name: str, weights: Path, **changes: Any) -> Probe:
    """With the weights of a file, and a head that gives logits about 1."""
    model = Probe(replace(ProbeConfig.of(name), **changes))
    first_weights(model, Start("upstream", str(weights), None, 0))  # type: ignore[arg-type]  no images
    nn.init.normal_(model.head.linear.weight, std=model.config.features**-0.5, generator=torch.manual_seed(0))
    return model.eval()


def logits(model: Probe, features: NDArray[np.float32]) -> NDArray[np.float64]:
    weight, bias = (tensor.detach().double().numpy() for tensor in model.head.linear.parameters())
    return np.asarray(features.astype(np.float64) @ weight[0] + bias)


@pytest.mark.parametrize(
    ("name", "changes", "of_timm"),
    [
        *((name, {}, {}) for name in SMALL),
        ("test_resnet", {"rule": "square"}, {"crop_mode": "squash"}),
    ],
)
def test_the_logits_are_timms(
    name: str, changes: dict[str, Any], of_timm: dict[str, Any], images: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    model = probe(name, weights_of(name, tmp_path / "weights.safetensors"), **changes)
    wanted = logits(model, features_of(backbone(name), images, **of_timm))
    assert np.ptp(wanted) > 0.05
    detector = as_detector(model)
    assert [detector.score(image).logit for image in images] == pytest.approx(wanted.tolist(), abs=1e-4)


def test_features_of_length_one(images: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    model = probe("test_resnet", weights_of("test_resnet", tmp_path / "weights.safetensors"), normalised=True)
    features = features_of(backbone("test_resnet"), images)
    wanted = logits(model, features / np.linalg.norm(features, axis=1, keepdims=True))
    assert [as_detector(model).score(image).logit for image in images] == pytest.approx(wanted.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "halves", "attention"),
    [
        ("test_resnet", (Precision.FP16,), Attention.AUTO),
        ("test_convnext", (Precision.BF16,), Attention.PLAIN),  # opset 20 has no convolution in bf16
        ("test_vit", (Precision.FP16,), Attention.AUTO),
    ],
)
def test_every_precision_through_spai_run(
    name: str,
    halves: tuple[Precision, ...],
    attention: Attention,
    images: list[NDArray[np.uint8]],
    tmp_path: Path,
    run: Run,
) -> None:
    """The accuracy check passes, TensorRT imports the graphs, and the scores are timm's."""
    model = probe(name, weights_of(name, tmp_path / "weights.safetensors"))
    save_checkpoint(tmp_path / "probe.safetensors", model, Card("mine"))
    settings = Settings((Precision.FP32, *halves), attention)
    exported = export(tmp_path / "probe.safetensors", tmp_path / "mine", settings).directory
    for artifact in Manifest.load(exported).artifacts:
        assert artifact.passed
        versions = ["11.4"] if artifact.options["opset"] > 20 else ["10.12", "11.4"]
        assert check(exported / artifact.encoder.file, versions) == []
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    wanted = logits(model, features_of(backbone(name), images))
    ran = run(*sorted(tmp_path.glob("*.png")), "--engine", exported, "--device", "cpu")
    found = [float(line.split(",")[2]) for line in ran.stdout.splitlines()[1:]]
    assert (ran.code, found) == (0, pytest.approx(wanted.tolist(), abs=1e-4))
    if Precision.FP16 not in halves:
        return
    with Detector.load(exported / "encoder.fp16.onnx", device="cpu") as half:
        assert [half.score(image).logit for image in images] == pytest.approx(wanted.tolist(), abs=0.02)


def test_attention_with_a_bias_exports(tmp_path: Path) -> None:
    """torch writes its own kernel for that into no graph."""
    model = Probe(ProbeConfig.of("test_vit_relpos")).eval()
    export_encoder(model.encoder, (160, 160), tmp_path / "encoder.onnx")
    assert check(tmp_path / "encoder.onnx") == []


def test_a_pooling_that_attends_is_for_tensorrt(tmp_path: Path) -> None:
    """Its query stays fp32, for which TensorRT has no kernel of the one operator that the blocks' attention becomes."""
    model = Probe(ProbeConfig.of("test_vit3")).eval()
    encoder = cast(SPEC, model.encoder, Precision.FP16, fused=True)
    export_encoder(encoder, (model.config.side, model.config.side), tmp_path / "encoder.onnx", FUSED_OPSET)
    operators = [node.op_type for node in onnx.load(tmp_path / "encoder.onnx").graph.node]
    assert operators.count("Attention") == len(model.encoder.backbone.blocks)
    assert check(tmp_path / "encoder.onnx", ["11.4"]) == []


def test_its_own_file_rebuilds_it(tmp_path: Path) -> None:
    model = probe("test_resnet", weights_of("test_resnet", tmp_path / "weights.safetensors"), normalised=True)
    save_checkpoint(tmp_path / "probe.safetensors", model, Card("mine"))
    found = load_checkpoint(tmp_path / "probe.safetensors")
    assert (found.detector.name, found.config, found.card) == ("probe", model.config, Card("mine"))
    assert all(torch.equal(tensor, found.model().state_dict()[name]) for name, tensor in model.state_dict().items())


def test_what_timm_says_of_its_models() -> None:
    found = ProbeConfig.of("convnext_tiny.in12k_ft_in1k")
    assert replace(found, backbone="convnext_tiny") == ProbeConfig()
    assert load_views("dm_nfnet_f0") == CentreCrop(192, Resize(213, "square", "bicubic"))  # 192 / 0.9
    assert load_views("test_resnet") == CentreCrop(160, Resize(168, "shorter", "bilinear"))
    assert with_tag("resnet18") == "resnet18.a1_in1k"
    assert with_tag("resnet18.tv_in1k") == "resnet18.tv_in1k"


def load_views(name: str) -> CentreCrop:
    facts = preprocessing(name)
    return CentreCrop(facts.side, Resize(facts.resize, facts.rule, facts.interpolation))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet_18", "timm has no model resnet_18; did you mean resnet18, "),
        ("dinov2", "timm has no model dinov2; did you mean "),
        ("no such model", r"timm has no model no such model; timm.list_models\(\) has its names"),
        ("hf-hub:someone/model", "timm has no model hf-hub:someone/model"),
        ("local-dir:/tmp/model", "timm has no model local-dir:/tmp/model"),
        ("resnet18.mine", "timm has no weights mine of resnet18; it has: a1_in1k, "),
        ("deepseek_vit_412m", r"pads images to squares \(timm's crop mode border\), which no view policy does"),
        ("qwen3_vit_88m_enc", r"gives features \(2, 576, 1024\) of 2 images, and one vector each is wanted"),
    ],
)
def test_what_is_no_backbone(name: str, said: str) -> None:
    with pytest.raises(BackboneError, match=said):
        ProbeConfig.of(name)


# ------------------------------------------------------------------------------------------------ headers and weights


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"backbone": "hf-hub:someone/model"}, "timm has no model hf-hub:someone/model"),
        ({"backbone": "local-dir:{folder}"}, "timm has no model local-dir:"),
        ({"backbone": "{folder}/model"}, "timm has no model "),
        ({"backbone": "x" * 300}, "Expected `str` of length <= 255"),
        ({"backbone": "test_vit"}, "test_vit gives 64 features, not 96"),
        ({"features": 95}, "test_resnet gives 96 features, not 95"),
        ({"backbone": "test_vit", "side": 161}, r"test_vit takes no views of 161×161 pixels"),
        ({"std": [0.2, 0.2, 0]}, "Expected `float` > 0.0"),
        ({"resize": 0}, "Expected `int` >= 1"),
        ({"interpolation": "lanczos4"}, "Invalid enum value 'lanczos4'"),
        ({"freeze": True}, "was written by a newer version: its config has freeze"),
    ],
)
def test_a_header_builds_nothing_but_what_timm_lists(
    change: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ProbeConfig.of("test_resnet")
    made = {name: value.format(folder=tmp_path) if isinstance(value, str) else value for name, value in change.items()}
    header = {"detector": "probe", "config": {**asdict(config), **made}, "card": asdict(Card())}
    save_file(Probe(config).state_dict(), tmp_path / "x.safetensors", {"spai": json.dumps(header)})

    def reached(*_: object, **__: object) -> None:
        raise AssertionError("timm was asked for a model of another place")

    for place in ("load_model_config_from_hf", "load_model_config_from_path"):
        monkeypatch.setattr(timm.models._factory, place, reached)
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(tmp_path / "x.safetensors")


def without_a_tensor(state: dict[str, Tensor]) -> None:
    del state["conv1.0.weight"]


def of_another_width(state: dict[str, Tensor]) -> None:
    state["conv1.0.weight"] = state["conv1.0.weight"][:3]


def with_one_more(state: dict[str, Tensor]) -> None:
    state["conv9.weight"] = torch.ones(1)


def not_finite(state: dict[str, Tensor]) -> None:
    state["conv1.0.weight"][0] = np.nan


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_a_tensor, "it is missing conv1.0.weight"),
        (of_another_width, "it has other shapes in conv1.0.weight"),
        (with_one_more, "it has no use for conv9.weight"),
        (not_finite, "conv1.0.weight holds numbers that are not finite"),
    ],
)
def test_weights_that_do_not_fit(change: Callable[[dict[str, Tensor]], None], said: str, tmp_path: Path) -> None:
    state = load_file(weights_of("test_resnet", tmp_path / "weights.safetensors"))
    change(state)
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=said):
        probe("test_resnet", tmp_path / "weights.safetensors")


def test_a_file_without_a_header_is_no_probe(tmp_path: Path) -> None:
    save_file(Probe(ProbeConfig.of("test_resnet")).state_dict(), tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="has no header, which says the dimensions of a linear probe"):
        load_checkpoint(tmp_path / "x.safetensors", "probe")


def test_it_is_small() -> None:
    file = Path(__file__).parents[2] / "spai_train" / "detectors" / "probe.py"
    assert len(file.read_text().splitlines()) <= 150, "the price of a detector, which DESIGN.md promises"

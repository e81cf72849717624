"""Exported graphs: their contract, that they compute what torch does, and that a wrong one never appears."""

import hashlib
import json
import re
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from spai_export import artifacts, directory, verify
from spai_export.choices import Settings
from spai_export.cli import main
from spai_export.directory import ExportReport, export
from spai_export.onnx import ExportError, check_graph, export_encoder, export_head
from spai_export.source import Source
from spai_runtime.detector import Detector
from spai_runtime.manifest import Manifest, Threshold
from spai_train.checkpoint import Card, load_checkpoint, save_checkpoint
from spai_train.detectors.spai.model import SPAI
from tests.golden import CHECKPOINT, IMAGES, expected, golden_views
from tests.support.models import UNEVEN


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    return export(CHECKPOINT, tmp_path_factory.mktemp("golden") / "m")


@pytest.fixture(scope="module")
def tiny_exported(tiny: Path) -> ExportReport:
    return export(tiny, tiny.parent / "exported")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    save_checkpoint(path, SPAI(UNEVEN), Card(name="tiny", notice="beware", threshold=0.25, threshold_source="a guess"))
    return path


def graph(path: Path) -> onnx.GraphProto:
    return onnx.load(str(path)).graph


def graphs(report: ExportReport) -> tuple[Path, Path]:
    return report.directory / "encoder.onnx", report.directory / "head.onnx"


def test_the_directory_is_the_contract(golden: ExportReport) -> None:
    names = ["README.md", "detector.json", "encoder.onnx", "head.onnx"]
    assert sorted(path.name for path in golden.directory.iterdir()) == names
    for name, inputs, outputs in (
        ("encoder", {"views": (TensorProto.UINT8, ["views", 224, 224, 3])}, {"features": (1, ["views", 82])}),
        (
            "head",
            {"features": (TensorProto.FLOAT, ["images", "views", 82])},
            {"logit": (1, ["images", 1]), "attention": (1, ["images", "views"])},
        ),
    ):
        found = graph(golden.directory / f"{name}.onnx")
        assert {value.name: described(value) for value in found.input} == inputs
        assert {value.name: described(value) for value in found.output} == outputs


def test_graphs_do_not_say_where_they_were_made(golden: ExportReport) -> None:
    """torch's exporter puts the stack trace of every node, with its paths, into the graph."""
    for name in ("encoder", "head"):
        content = (golden.directory / f"{name}.onnx").read_bytes()
        assert b"site-packages" not in content
        assert str(Path(torch.__file__).parent).encode() not in content
        assert not any(node.metadata_props or node.doc_string for node in onnx.load_from_string(content).graph.node)


def described(value: onnx.ValueInfoProto) -> tuple[int, list[str | int]]:
    tensor = value.type.tensor_type
    return tensor.elem_type, [axis.dim_param or axis.dim_value for axis in tensor.shape.dim]


def test_uint8_feeds_one_cast_and_nothing_reads_a_shape(golden: ExportReport) -> None:
    nodes = graph(golden.directory / "encoder.onnx").node
    assert [node.op_type for node in nodes if "views" in node.input] == ["Cast"]
    assert not {"Shape", "DFT", "Expand", "If", "Loop"} & {node.op_type for node in nodes}


@pytest.mark.parametrize("index", [0, 3, 4])
def test_graphs_give_upstreams_numbers(golden: ExportReport, index: int) -> None:
    """ONNX Runtime alone, no code of the runtime."""
    encoder, head = (onnxruntime.InferenceSession(str(golden.directory / f"{n}.onnx")) for n in ("encoder", "head"))
    (features,) = encoder.run(None, {"views": golden_views(index)})
    logit, attention = head.run(["logit", "attention"], {"features": features[None]})
    np.testing.assert_allclose(features, expected(f"{index}/features"), atol=1e-4, rtol=0)
    np.testing.assert_allclose(attention[0], expected(f"{index}/attention").mean(axis=0), atol=1e-5, rtol=0)
    np.testing.assert_allclose(logit[0], expected(f"{index}/logit"), atol=1e-4, rtol=0)


def test_detector_gives_upstreams_logits(golden: ExportReport) -> None:
    with Detector.load(golden.directory) as detector:
        for index, path in enumerate(IMAGES):
            score = detector.score(path)
            assert score.logit == pytest.approx(expected(f"{index}/logit").item(), abs=1e-4)
            assert score.layout.grid is None or score.attention_grid.shape == score.layout.grid  # type: ignore[union-attr]


def test_manifest_says_where_everything_came_from(golden: ExportReport) -> None:
    manifest = Manifest.load(golden.directory)
    assert manifest == golden.manifest
    assert manifest.provenance["checkpoint_sha256"] == hashlib.sha256(CHECKPOINT.read_bytes()).hexdigest()
    assert manifest.provenance["licences"] == {"code": "Apache-2.0"}, "these weights are not published"
    (artifact,) = manifest.artifacts
    assert (artifact.kind, artifact.precision, artifact.options["opset"]) == ("onnx", "fp32", 20)
    for graph_of in (artifact.encoder, artifact.head):
        assert graph_of.sha256 == hashlib.sha256((golden.directory / graph_of.file).read_bytes()).hexdigest()
    assert set(manifest.provenance["tools"]) >= {"torch", "onnx", "onnxruntime"}
    assert manifest.provenance["tools"]["onnxruntime"] == onnxruntime.__version__
    verified = artifact.options["verified"]
    assert verified["tolerance"] == {"features": 1e-4, "logit": 1e-4, "attention": 1e-5}
    assert verified["largest_difference"].keys() == verified["tolerance"].keys()
    assert all(0 < value < verified["tolerance"][name] for name, value in verified["largest_difference"].items())
    assert "not calibrated" in manifest.threshold.source


def test_onnx_runtime_for_gpus_has_a_version_too(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its package is onnxruntime-gpu, none is called onnxruntime."""
    real = directory.version

    def version(name: str) -> str:
        if name.startswith("onnxruntime"):
            raise PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(directory, "version", version)
    tools = directory._provenance(Source.load(tiny, Settings()))["tools"]
    assert tools["onnxruntime"] == onnxruntime.__version__


def test_card_reaches_the_manifest(tiny_exported: ExportReport) -> None:
    manifest = tiny_exported.manifest
    assert (manifest.name, manifest.notice) == ("tiny", "beware")
    assert manifest.threshold == Threshold(0.25, "a guess")
    assert manifest.views.size == 32


def test_two_exports_are_the_same(tiny: Path, tiny_exported: ExportReport, tmp_path: Path) -> None:
    again = export(tiny, tmp_path / "m")
    for one, other in zip(tiny_exported.files, again.files, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_difference_above_tolerance_writes_nothing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_weights(_: SPAI, shape: tuple[int, int], path: Path, opset: int) -> None:
        torch.manual_seed(1)
        export_encoder(SPAI(UNEVEN).encoder, shape, path, opset)

    monkeypatch.setattr(artifacts, "export_encoder", other_weights)
    with pytest.raises(ExportError, match="differ from the checkpoint: features"):
        export(tiny, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_nan_is_above_tolerance(tiny: Path, tiny_exported: ExportReport) -> None:
    model = load_checkpoint(tiny).model()
    for parameter in model.head.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(ExportError, match="nan"):
        verify.verify(tiny_exported.manifest, model.encoder, model.head, graphs(tiny_exported))


def model_of(node: onnx.NodeProto, element: int = TensorProto.UINT8) -> onnx.ModelProto:
    value = [helper.make_tensor_value_info(name, element, [2]) for name in ("x", "y")]
    model_graph = helper.make_graph([node], "g", value[:1], value[1:])
    return helper.make_model(model_graph, opset_imports=[helper.make_opsetid("", 20)])


class Bessel(torch.nn.Module):
    """Features by a function that ONNX has no operator for."""

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(views.float().mean(dim=(1, 2)))


def test_what_torch_cannot_write_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"^torch cannot write encoder\.onnx: .*bessel_j0"):
        export_encoder(Bessel(), (32, 32), tmp_path / "encoder.onnx")


def test_check_refuses_uint8_outside_a_cast(tmp_path: Path) -> None:
    onnx.save(model_of(helper.make_node("Identity", ["x"], ["y"])), str(tmp_path / "x.onnx"))
    with pytest.raises(ExportError, match="feeds uint8 to Identity"):
        check_graph(tmp_path / "x.onnx")


def test_check_refuses_a_dft(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 2])
    dft = helper.make_graph([helper.make_node("DFT", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(dft, opset_imports=[helper.make_opsetid("", 20)]), str(tmp_path / "x.onnx"))
    with pytest.raises(ExportError, match="DFT"):
        check_graph(tmp_path / "x.onnx")


def test_check_refuses_tensors_outside_the_file(tmp_path: Path) -> None:
    model = model_of(helper.make_node("Add", ["x", "c"], ["y"]), TensorProto.FLOAT)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(2, np.float32), "c"))
    onnx.save(model, str(tmp_path / "x.onnx"), save_as_external_data=True, location="x.bin", size_threshold=0)
    with pytest.raises(ExportError, match="outside the file"):
        check_graph(tmp_path / "x.onnx")


def test_command(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--ckpt", str(tiny), "--output", str(tmp_path / "m"), "--threshold", "0.9"]) == 0
    out = capsys.readouterr().out
    assert "largest difference from torch: features" in out
    assert "threshold 0.9: given to spai-export --threshold" in out
    written = json.loads((tmp_path / "m" / "detector.json").read_text())
    assert written["schema"] == 3
    assert written["artifacts"][0]["options"]["verified"]["tolerance"] == asdict(verify.TOLERANCE)


def test_command_names_the_directory_after_the_checkpoint(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny.parent)
    assert main(["--ckpt", "tiny.safetensors"]) == 0
    assert (tiny.parent / "tiny" / "detector.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ckpt", "absent.pth"], "cannot read absent.pth"),
        (["--ckpt", __file__], "is not a checkpoint|was refused"),
        (["--precision", "fp12", "--ckpt", "x"], "Invalid value for '--precision'"),
        ([], "Missing option '--ckpt'"),
        (["--ckpt", str(CHECKPOINT), "--output", __file__], "cannot write"),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("spai-export: ")
    assert re.search(message, captured.err)


def test_weights_lie_in_the_file_up_to_what_one_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.onnx._internal.exporter._onnx_program._LARGE_MODEL_THRESHOLD", 0)
    export_head(torch.nn.Linear(8, 1), 8, tmp_path / "head.onnx", attention=False)
    assert [path.name for path in tmp_path.iterdir()] == ["head.onnx"]
    monkeypatch.setattr("spai_export.onnx.MOST_WEIGHTS", 35)  # bytes, of 8 weights and a bias
    with pytest.raises(
        ExportError, match=r"more\.onnx would hold 0\.0 GB of weights, and a file in ONNX holds 2\.1 GB: "
    ):
        export_head(torch.nn.Linear(8, 1), 8, tmp_path / "more.onnx", attention=False)
    assert not (tmp_path / "more.onnx").exists()


def test_the_licence_of_the_weights_is_the_users_to_name(tiny_checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "tiny"
    assert main(["--ckpt", str(tiny_checkpoint), "--licence", "CC BY 4.0", "--output", str(output)]) == 0
    assert Manifest.load(output).provenance["licences"] == {"code": "Apache-2.0", "weights": "CC BY 4.0"}
    assert "CC BY 4.0" in (output / "README.md").read_text()

"""Graphs become plans: as strict fakes of TensorRT 10.12 and 11.4 see it, and for real where there is a GPU."""

import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from PIL import Image

from spai_export.choices import TrtFor
from spai_export.directory import writing
from spai_export.onnx import ExportError
from spai_export.tensorrt.builder import HEAD_VIEWS
from spai_export.tensorrt.inspector import UNREADABLE
from spai_export.tensorrt.plans import BuildOptions, Built, build
from spai_export.tensorrt.platforms import TensorRTMissingError, ThisGpu
from spai_runtime.errors import EngineError, ImageError, UserError
from spai_runtime.loading import Exported, load_engines
from spai_runtime.manifest import Artifact, Graph, Manifest, Threshold
from spai_runtime.views import Tiles, WholeImage
from tests.gpu.fakes import fake_cupy, fake_tensorrt
from tests.gpu.fakes.fake_tensorrt_engine import EngineInspector
from tests.gpu.fakes.fake_tensorrt_types import FakeTensorRT, Header, Severity, read_plan
from tests.support.images import pixels
from tests.support.models import TINY
from tests.support.small_graphs import WIDTH, encode, write_encoder, write_head

VERSIONS = ["10.12.0.36", "11.4.0.106"]
SIZE, FEATURES = TINY.tile_size, TINY.features
MADE = {"model.plan", "head.plan", "model.layers.json"}


@pytest.fixture
def directory(tiny_detector: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_detector, tmp_path / "detector"))


@pytest.fixture(params=VERSIONS)
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    """A machine with a GPU and TensorRT."""
    return fake_tensorrt.install(monkeypatch, fake_cupy.install(monkeypatch), request.param)


@pytest.fixture
def fake11(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    return fake_tensorrt.install(monkeypatch, fake_cupy.install(monkeypatch, gpus=2))


def built(directory: Path, **options: Any) -> Built:
    """With the plans in the directory itself, as an export puts them there."""
    with writing(directory) as folder:
        return build(directory, Manifest.load(directory), folder, BuildOptions(**{"trt_for": TrtFor.GPU, **options}))


def plan_of(directory: Path, **options: Any) -> Artifact:
    (artifact,) = built(directory, **options).artifacts
    return artifact


def refused(directory: Path, **options: Any) -> str:
    """The sentence of a build that fails and leaves the directory as it was."""
    before = sorted(path.name for path in directory.iterdir())
    with pytest.raises(ExportError) as raised:
        built(directory, **options)
    assert sorted(path.name for path in directory.iterdir()) == before
    assert "\n" not in str(raised.value)
    return str(raised.value)


def headers(directory: Path) -> tuple[Header, Header]:
    """What the plans of encoder and head say beside their graphs."""
    encoder, head = (read_plan((directory / name).read_bytes()) for name in ("model.plan", "head.plan"))
    assert encoder is not None
    assert head is not None
    return encoder[0], head[0]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_plans_appear_beside_their_graphs(fake: FakeTensorRT, directory: Path) -> None:
    before = {path.name: sha256(path) for path in directory.iterdir()}
    plan = plan_of(directory, batch_size=8)
    assert (plan.kind, plan.precision, plan.accuracy) == ("tensorrt", "fp32", None)
    assert {path.name for path in directory.iterdir()} == before.keys() | MADE
    assert {name: sha256(directory / name) for name in before} == before
    assert (plan.encoder.file, plan.encoder.sha256) == ("model.plan", sha256(directory / "model.plan"))
    assert (plan.head.file, plan.head.sha256) == ("head.plan", sha256(directory / "head.plan"))
    for name, source in (("model.plan", "encoder.onnx"), ("head.plan", "head.onnx")):
        read = read_plan((directory / name).read_bytes())
        assert read is not None
        assert [node.name for node in onnx.load_from_string(read[1]).graph.node] == [
            node.name for node in onnx.load(directory / source).graph.node
        ]
    assert plan.target == {
        "tensorrt": fake.version,
        "gpu": "NVIDIA H100",
        "compute_capability": "9.0",
        "batch_size": 8,
        "version_compatible": False,
        "lean_runtime": False,
    }


@pytest.mark.usefixtures("fake")
def test_the_inspector_of_either_release_is_understood(directory: Path) -> None:
    assert built(directory).notes[1:] == ["2 of 2 attentions are fused", "25 of 25 products are fp32 in the graph"]


@pytest.mark.usefixtures("fake11")
def test_what_a_plan_was_built_with_is_recorded_and_survives_detector_json(directory: Path) -> None:
    plan = plan_of(directory, workspace_gib=2.5, optimization_level=5, head_views=100)
    assert plan.options == {
        "tf32": False,
        "workspace_gib": 2.5,
        "optimization_level": 5,
        "head_views": 100,
        "onnx_sha256": {name: sha256(directory / name) for name in ("encoder.onnx", "head.onnx")},
    }
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Artifact) == plan


def test_the_networks_are_strongly_typed_without_tf32(fake: FakeTensorRT, directory: Path) -> None:
    built(directory)
    for header in headers(directory):
        assert header.strongly_typed
        assert header.flags == []  # TF32 is set in a new configuration
        assert (header.verbosity, header.optimization_level) == ("DETAILED", 3)
    assert len(fake.builds) == 2


@pytest.mark.usefixtures("fake")
def test_profiles(directory: Path) -> None:
    built(directory, batch_size=24)
    encoder, head = headers(directory)
    assert encoder.profiles == [{"views": [[1, SIZE, SIZE, 3], [24, SIZE, SIZE, 3], [24, SIZE, SIZE, 3]]}]
    assert head.profiles == [{"features": [[1, 1, FEATURES], [1, 16, FEATURES], [1, HEAD_VIEWS, FEATURES]]}]
    built(directory, batch_size=1, head_views=5)
    encoder, head = headers(directory)
    assert encoder.profiles == [{"views": [[1, SIZE, SIZE, 3]] * 3}]
    assert head.profiles == [{"features": [[1, 1, FEATURES], [1, 5, FEATURES], [1, 5, FEATURES]]}]


def test_whole_images_come_one_by_one_in_any_size(fake: FakeTensorRT, whole: Path) -> None:
    plan = plan_of(whole, batch_size=24)
    encoder, head = headers(whole)
    assert encoder.profiles == [{"views": [[1, 1, 1, 3], [1, 1024, 1024, 3], [1, 4096, 4096, 3]]}]
    assert head.profiles == [{"features": [[1, 1, WIDTH], [1, 16, WIDTH], [1, HEAD_VIEWS, WIDTH]]}]
    assert plan.target["batch_size"] == 1
    manifest = replace(Manifest.load(whole), artifacts=(plan,))
    engines = load_engines(Exported(whole, manifest, "model.plan"), "cuda:0")
    for height, width in ((1, 1), (70, 31), (40, 220)):
        views = pixels(height, width)[None]
        np.testing.assert_allclose(engines.encoder.run(views)[0], encode(views), rtol=1e-6)
    with pytest.raises(EngineError, match="4096"):
        engines.encoder.run(np.zeros((1, 1, 4097, 3), np.uint8))
    engines.encoder.close()
    engines.head.close()
    fake.machine.check()


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A detector of whole images, whose features are their mean colours, and whose head has no attention."""
    directory = tmp_path / "whole"
    directory.mkdir()
    encoder = write_encoder(directory / "encoder.onnx", sides=("height", "width"))
    head = write_head(directory / "head.onnx", attention=False)
    artifact = Artifact("onnx", "fp32", Graph.of(encoder), Graph.of(head))
    described = Manifest("whole", "mean", WholeImage(), WIDTH, Threshold(0.5, "a test"), attention=False)
    (directory / "detector.json").write_bytes(replace(described, artifacts=(artifact,)).dump())
    return directory


def test_the_head_takes_every_image_that_pillow_decodes() -> None:
    most = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # above it, Pillow raises DecompressionBombError
    sides = [*range(224, 14_000, 224), most // 224]
    views = [len(Tiles().layout(height, most // height)) for height in sides]
    assert max(views) == most // 224**2 == 3566 < HEAD_VIEWS
    assert len(Tiles().layout(1, most // 224)) == 3566  # a strip, which is padded to the height of a tile
    with pytest.raises(ImageError, match="padded past the limit"):
        Tiles().layout(1, most // 224 + 1)


def test_options_reach_the_builder(fake: FakeTensorRT, directory: Path) -> None:
    built(directory, workspace_gib=0.5, optimization_level=0)
    for header in headers(directory):
        assert (header.workspace, header.optimization_level) == (2**29, 0)
    built(directory)
    assert headers(directory)[0].workspace == fake.machine.gpus[0].memory  # all there is


@pytest.mark.usefixtures("fake")
def test_version_compatible_plans_leave_the_lean_runtime_out(directory: Path) -> None:
    assert plan_of(directory, version_compatible=True).target["version_compatible"]
    for header in headers(directory):
        assert header.flags == ["EXCLUDE_LEAN_RUNTIME", "VERSION_COMPATIBLE"]


def test_the_gpu_that_was_named_is_the_one_that_builds(fake11: FakeTensorRT, directory: Path) -> None:
    fake11.machine.gpus[1].name, fake11.machine.gpus[1].capability = "NVIDIA L4", (8, 9)
    target = plan_of(directory, device="cuda:1").target
    assert (target["gpu"], target["compute_capability"]) == ("NVIDIA L4", "8.9")
    assert [header.capability for header in headers(directory)] == [(8, 9), (8, 9)]
    assert fake11.machine.touched == {1}


# ---- the timing cache


@pytest.mark.usefixtures("fake")
def test_the_timing_cache_is_made_read_and_added_to(directory: Path, tmp_path: Path) -> None:
    cache = tmp_path / "timing.bin"
    first = built(directory, timing_cache=cache)
    content = cache.read_bytes()
    assert content.count(b" and a tactic") == 2  # encoder and head
    second = built(directory, timing_cache=cache)
    assert cache.read_bytes() == content + 2 * b" and a tactic"
    assert not [note for note in (*first.notes, *second.notes) if "timing" in note]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["timing.bin"]


@pytest.mark.parametrize("content", [b"timing cache 10.9.0 NVIDIA A100 and a tactic", b"\x00 not a cache"])
@pytest.mark.usefixtures("fake11")
def test_a_foreign_timing_cache_is_started_anew(directory: Path, tmp_path: Path, content: bytes) -> None:
    cache = tmp_path / "timing.bin"
    cache.write_bytes(content)
    notes = built(directory, timing_cache=cache).notes
    said = f"{cache} fits neither this GPU nor this TensorRT, or is damaged: started anew"
    assert [note for note in notes if "anew" in note] == [said]
    assert cache.read_bytes() == b"timing cache 11.4.0.106 NVIDIA H100" + 2 * b" and a tactic"


@pytest.mark.usefixtures("fake11")
def test_a_timing_cache_that_cannot_be_read_or_written_costs_no_plan(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    notes = built(directory, timing_cache=tmp_path / "folder").notes
    assert f"cannot read the timing cache {tmp_path / 'folder'}: Is a directory" in notes
    assert f"cannot write the timing cache {tmp_path / 'folder'}: Is a directory" in notes
    notes = built(directory, timing_cache=tmp_path / "nowhere" / "timing.bin").notes
    assert f"cannot write the timing cache {tmp_path / 'nowhere' / 'timing.bin'}: No such file or directory" in notes


# ---- what the inspector and the log say


def entry(name: str, type_: str) -> dict[str, Any]:
    tensor = {"Name": "t", "Dimensions": [1], "Format/Datatype": type_}
    return {
        "Name": f"{name}_myl0_1",
        "LayerType": "gemm",
        "Inputs": [tensor],
        "Outputs": [tensor],
        "TacticName": "_gemm_mha_v2_0x1f" if name == "node_softmax" else "",
        "Metadata": f"[ONNX Layer: {name}]",
    }


def test_the_report_is_kept_and_summed_up(fake11: FakeTensorRT, directory: Path) -> None:
    fake11.layers = [entry("node_matmul", "Float"), entry("node_softmax", "Float")]
    notes = built(directory).notes
    assert json.loads((directory / "model.layers.json").read_text())["Layers"] == fake11.layers
    assert notes[1:] == [
        "1 of 2 attentions are fused; not those of node_matmul_6",
        "25 of 25 products are fp32 in the graph",
    ]


@pytest.mark.usefixtures("fake11")
def test_the_inspector_is_told_a_shape(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspected = []
    whole = EngineInspector.get_engine_information

    def information(self: Any, format: Any) -> str:  # noqa: A002
        inspected.append((dict(self.execution_context.shapes), self.execution_context.memory))
        return whole(self, format)

    monkeypatch.setattr(EngineInspector, "get_engine_information", information)
    built(directory, batch_size=6)
    assert inspected == [({"views": (6, SIZE, SIZE, 3)}, (0, 0))]  # and no memory is taken for it


def test_a_report_of_unknown_layout_costs_no_plan(fake11: FakeTensorRT, directory: Path) -> None:
    fake11.layers = []
    assert built(directory).notes[1:] == [UNREADABLE]


@pytest.mark.usefixtures("fake11")
def test_a_plan_that_cannot_be_inspected_is_kept(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, _: bytes) -> None:
        self.logger.log(Severity.ERROR, "a lean runtime is wanted")

    monkeypatch.setattr(sys.modules["tensorrt"].Runtime, "deserialize_cuda_engine", refuse)
    assert built(directory).notes[1:] == [UNREADABLE, "TensorRT: a lean runtime is wanted"]
    assert (directory / "model.plan").exists()
    assert not (directory / "model.layers.json").exists()


@pytest.mark.usefixtures("fake11")
def test_warnings_are_told_once(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensorrt = sys.modules["tensorrt"]
    severity = tensorrt.ILogger.Severity
    start = tensorrt.Builder.create_network

    def create_network(self: Any, flags: int = 0) -> Any:
        for level, message in ((severity.WARNING, "weights\n  are subnormal."), (severity.INFO, "a layer")):
            self.logger.log(level, message)
        return start(self, flags)

    monkeypatch.setattr(tensorrt.Builder, "create_network", create_network)
    for _ in range(2):  # encoder and head each time; what the first build said is gone in the second
        notes = built(directory).notes
        assert [note for note in notes if note.startswith("TensorRT: ")] == ["TensorRT: weights are subnormal"]


# ---- what goes wrong


@pytest.mark.usefixtures("fake")
def test_a_graph_that_is_refused(directory: Path) -> None:
    """By TensorRT itself, since the lint does not speak of DFT."""
    model = onnx.load(directory / "head.onnx")
    model.graph.node.add(op_type="DFT", name="spectrum", input=["features"], output=["unused"])
    onnx.save(model, directory / "head.onnx")
    said = "TensorRT refuses head.onnx: DFT (spectrum): No importer registered for op: DFT"
    assert refused(directory).startswith(said)


def test_what_the_lint_refuses(fake: FakeTensorRT, directory: Path) -> None:
    """Before TensorRT is asked, whose own refusal names no remedy."""
    model = onnx.load(directory / "head.onnx")
    model.graph.node.add(op_type="Attention", name="mha", input=["features"] * 3, output=["unused"])
    onnx.save(model, directory / "head.onnx")
    what = "input 0 is float32" if fake.major == 11 else "imported since 10.14"
    assert f"does not import: Attention (mha): {what}" in refused(directory)
    assert "export with --attention plain" in refused(directory)


def test_a_build_that_fails(fake: FakeTensorRT, directory: Path) -> None:
    fake.build_fails = "Error Code 10: Internal Error (Could not find any implementation for node\n {Attention}.)"
    assert refused(directory) == (
        "TensorRT could not build head.onnx: IBuilder::buildSerializedNetwork: "
        "Error Code 10: Internal Error (Could not find any implementation for node {Attention}.)"
    )


def test_a_failure_is_not_explained_by_an_earlier_one(fake11: FakeTensorRT, directory: Path) -> None:
    fake11.build_fails = "the first"
    refused(directory)
    fake11.build_fails = "the second"
    assert refused(directory).endswith("the second")
    fake11.build_fails = None
    assert not [note for note in built(directory).notes if note.startswith("TensorRT: ")]


@pytest.mark.usefixtures("fake11")
def test_a_directory_that_cannot_be_written(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert refused(directory) == f"cannot write {directory}: No space left on device"


def test_without_tensorrt(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy.install(monkeypatch)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_lean", None)
    assert refused(directory) == (
        "TensorRT is not installed: pip install 'spai-toolkit[trt]' on a machine with an NVIDIA GPU, "
        "and run this command there"
    )


def test_with_the_lean_runtime_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tensorrt.install(monkeypatch, fake_cupy.install(monkeypatch), lean=True)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(TensorRTMissingError, match="tensorrt_lean runs plans but builds none: pip install"):
        ThisGpu.find("cuda:0")


def test_tensorrt_without_its_libraries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = "libnvinfer.so.11: cannot open shared object file"
    (tmp_path / "tensorrt.py").write_text(f"raise ImportError({broken!r})")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(TensorRTMissingError, match=f"^TensorRT cannot be loaded \\({broken}\\): pip install"):
        ThisGpu.find("cuda:0")


def test_a_tensorrt_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tensorrt.install(monkeypatch, fake_cupy.install(monkeypatch), "10.9.0.34")
    with pytest.raises(TensorRTMissingError, match=r"^TensorRT 10.9.0.34 is too old: pip install 'tensorrt>=10.12'$"):
        ThisGpu.find("cuda:0")


def test_without_a_gpu(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tensorrt.install(monkeypatch, fake_cupy.install(monkeypatch, gpus=0))
    sentence = refused(directory)
    assert sentence.startswith(
        "TensorRT builds a plan on the GPU that shall run it, so run this command there: no GPU can be"
    )
    assert issubclass(TensorRTMissingError, UserError)


def test_without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tensorrt.install(monkeypatch, fake_cupy.install(monkeypatch))
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(TensorRTMissingError, match="CuPy is not installed"):
        ThisGpu.find("cuda:0")


def test_a_driver_that_tensorrt_does_not_start_with(fake11: FakeTensorRT, directory: Path) -> None:
    def start(logger: Any) -> None:
        logger.log(Severity.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    fake11.start = start  # type: ignore[method-assign]
    assert refused(directory) == ("TensorRT 11.4.0.106 does not start: CUDA initialization failure with error: 35")


@pytest.mark.gpu
def test_real_plans_are_built(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    try:
        found = ThisGpu.find("cuda:0")
    except TensorRTMissingError as error:
        pytest.skip(str(error))
    directory = request.getfixturevalue("directory")
    made = built(directory, batch_size=4, head_views=64, timing_cache=tmp_path / "timing.bin")
    target = made.artifacts[0].target
    assert (target["tensorrt"], target["gpu"]) == (found.trt.__version__, found.gpu.name)
    assert (tmp_path / "timing.bin").stat().st_size > 0
    assert made.notes[1].endswith("of 2 attentions are fused") or "not those of" in made.notes[1], made.notes
    engine = found.trt.Runtime(found.trt.Logger()).deserialize_cuda_engine((directory / "model.plan").read_bytes())
    shapes = [list(shape) for shape in engine.get_tensor_profile_shape("views", 0)]
    assert shapes == [[1, SIZE, SIZE, 3], [4, SIZE, SIZE, 3], [4, SIZE, SIZE, 3]]

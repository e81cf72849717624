"""Graphs become plans: by NVIDIA's parser and builder, those of TensorRT for RTX, which need no GPU.

What they build for a GPU is told from their configuration and from the plans. What an engine inspector says, which
wants a driver, is told by strict fakes of TensorRT 10.12 and 11.4; `test_plans_gpu.py` is for where there is a GPU.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
from spai_export.tensorrt.builder import HEAD_VIEWS, InputShape, PlanBuilder, TimingCache
from spai_export.tensorrt.inspector import UNREADABLE, Wanted
from spai_export.tensorrt.listing import layers_in
from spai_export.tensorrt.plans import BuildOptions, Built, build
from spai_export.tensorrt.platforms import TensorRTMissingError, ThisGpu
from spai_runtime.choice import Requested
from spai_runtime.errors import EngineError, ImageError, UserError
from spai_runtime.exported import Exported
from spai_runtime.loading import load_engines
from spai_runtime.manifest import Artifact, Graph, Manifest, Threshold
from spai_runtime.views import Tiles, WholeImage
from tests.gpu import real_builder
from tests.gpu.fakes import fake_cupy, fake_tensorrt, plan_writer
from tests.gpu.fakes.fake_tensorrt_engine import EngineInspector
from tests.gpu.fakes.fake_tensorrt_plans import read_plan
from tests.gpu.fakes.plan_writer import Written
from tests.gpu.real_builder import Builds
from tests.support.images import pixels
from tests.support.models import TINY
from tests.support.small_graphs import WIDTH, encode, write_encoder, write_head

VERSIONS = ["10.12.0.36", "11.4.0.106"]
SIZE, FEATURES = TINY.tile_size, TINY.features
PLANS = {"model.plan", "head.plan"}


@pytest.fixture
def directory(tiny_detector: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_detector, tmp_path / "detector"))


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Builds:
    """A machine with two GPUs and a real builder."""
    return real_builder.install(monkeypatch, fake_cupy.install(monkeypatch, gpus=2))


@pytest.fixture
def at_once(real: Builds) -> Builds:
    """The same, which parses and configures but builds nothing."""
    real.instead = b"plan"
    return real


@pytest.fixture(params=VERSIONS)
def written(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Written:
    """A machine with a GPU and TensorRT of either release, of which only the half that runs plans is there."""
    return plan_writer.install(monkeypatch, fake_cupy.install(monkeypatch), request.param)


def built(directory: Path, **options: Any) -> Built:
    """With the plans in the directory itself, as an export puts them there."""
    with writing(directory) as folder:
        return build(directory, Manifest.load(directory), folder, BuildOptions(**{"trt_for": TrtFor.GPU, **options}))


def refused(directory: Path, **options: Any) -> str:
    """The sentence of a build that fails and leaves the directory as it was."""
    before = sorted(path.name for path in directory.iterdir())
    with pytest.raises(ExportError) as raised:
        built(directory, **options)
    assert sorted(path.name for path in directory.iterdir()) == before
    assert "\n" not in str(raised.value)
    return str(raised.value)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class Made:
    """What a build left."""

    directory: Path
    before: dict[str, str]
    builds: Builds
    built: Built

    @property
    def plan(self) -> Artifact:
        (artifact,) = self.built.artifacts
        return artifact


def made(source: Path, folder: Path, **options: Any) -> Made:
    directory = Path(shutil.copytree(source, folder / "detector"))
    before = {path.name: sha256(path) for path in directory.iterdir()}
    with pytest.MonkeyPatch.context() as patch:
        builds = real_builder.install(patch, fake_cupy.install(patch))
        return Made(directory, before, builds, built(directory, **options))


@pytest.fixture(scope="module")
def plain(tiny_detector: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(tiny_detector, tmp_path_factory.mktemp("plain"), batch_size=8)


OPTIONS: dict[str, Any] = {
    "batch_size": 1,
    "workspace_gib": 2.5,
    "optimization_level": 5,
    "head_views": 5,
    "version_compatible": True,
}


@pytest.fixture(scope="module")
def optioned(tiny_detector: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Built with every option but a timing cache."""
    return made(tiny_detector, tmp_path_factory.mktemp("optioned"), **OPTIONS)


def test_the_plans_appear_beside_their_graphs(plain: Made) -> None:
    plan, directory = plain.plan, plain.directory
    assert (plan.kind, plan.precision, plan.accuracy) == ("tensorrt", "fp32", None)
    assert {path.name for path in directory.iterdir()} == plain.before.keys() | PLANS
    assert {name: sha256(directory / name) for name in plain.before} == plain.before
    assert (plan.encoder.file, plan.encoder.sha256) == ("model.plan", sha256(directory / "model.plan"))
    assert (plan.head.file, plan.head.sha256) == ("head.plan", sha256(directory / "head.plan"))
    assert plan.target == {
        "tensorrt": "11.4.0.106",
        "gpu": "NVIDIA H100",
        "compute_capability": "9.0",
        "batch_size": 8,
        "version_compatible": False,
        "lean_runtime": False,
    }


@pytest.mark.parametrize(("plan", "graph"), [("model.plan", "encoder.onnx"), ("head.plan", "head.onnx")])
def test_a_plan_holds_every_product_of_its_graph(plain: Made, plan: str, graph: str) -> None:
    """By the listing of its layers, where `\\x1f` lies between the names of a layer's nodes."""
    content = (plain.directory / plan).read_bytes()
    layers, wanted = layers_in(content).layers, Wanted.of(plain.directory / graph)
    assert layers
    named = {name for layer in layers for name in layer.nodes}
    assert wanted.products
    assert wanted.products.keys() <= named <= {node.name for node in onnx.load(plain.directory / graph).graph.node}
    assert b"]\x1f[ONNX Layer: " in content


def test_what_a_plan_was_built_with_is_recorded_and_survives_detector_json(optioned: Made) -> None:
    plan = optioned.plan
    assert plan.options == {
        "tf32": False,
        "workspace_gib": 2.5,
        "optimization_level": 5,
        "head_views": 5,
        "onnx_sha256": {name: sha256(optioned.directory / name) for name in ("encoder.onnx", "head.onnx")},
    }
    assert plan.target["version_compatible"]
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Artifact) == plan


def flags(config: Any) -> set[str]:
    """Names of the BuilderFlags that are set."""
    kinds = sys.modules["tensorrt_rtx"].BuilderFlag.__members__
    return {name for name, flag in kinds.items() if config.get_flag(flag)}


def test_the_networks_are_strongly_typed_without_tf32(plain: Made) -> None:
    trt = sys.modules["tensorrt_rtx"]
    assert "TF32" in flags(trt.Builder(plain.builds.log).create_builder_config())
    for network, config in zip(plain.builds.networks, plain.builds.configs, strict=True):
        assert network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        assert flags(config) == set()
        assert (config.profiling_verbosity, config.builder_optimization_level) == (trt.ProfilingVerbosity.DETAILED, 3)
        assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) > 2**33  # all that there may be
        assert config.num_optimization_profiles == 1


def test_options_reach_the_builder(optioned: Made) -> None:
    """Version compatible plans leave the lean runtime out."""
    trt = sys.modules["tensorrt_rtx"]
    assert len(optioned.builds.configs) == 2
    for config in optioned.builds.configs:
        assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 5 * 2**29
        assert config.builder_optimization_level == 5
        assert flags(config) == {"EXCLUDE_LEAN_RUNTIME", "VERSION_COMPATIBLE"}


def shapes(builds: Builds) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Least, best and largest: of the encoder's input, and of the head's, which is built first."""
    head, encoder = builds.profiles
    views, features = encoder.get_shape("views"), head.get_shape("features")
    return [tuple(shape) for shape in views], [tuple(shape) for shape in features]


def test_profiles(plain: Made, optioned: Made) -> None:
    views, features = shapes(plain.builds)
    assert views == [(1, SIZE, SIZE, 3), (8, SIZE, SIZE, 3), (8, SIZE, SIZE, 3)]
    assert features == [(1, 1, FEATURES), (1, 16, FEATURES), (1, HEAD_VIEWS, FEATURES)]
    views, features = shapes(optioned.builds)
    assert views == [(1, SIZE, SIZE, 3)] * 3
    assert features == [(1, 1, FEATURES), (1, 5, FEATURES), (1, 5, FEATURES)]


def test_whole_images_come_one_by_one_in_any_size(real: Builds, whole: Path) -> None:
    (plan,) = built(whole, batch_size=24).artifacts
    views, features = shapes(real)
    assert views == [(1, 1, 1, 3), (1, 1024, 1024, 3), (1, 4096, 4096, 3)]
    assert features == [(1, 1, WIDTH), (1, 16, WIDTH), (1, HEAD_VIEWS, WIDTH)]
    assert plan.target["batch_size"] == 1


def test_whole_images_of_any_size_are_run(written: Written, whole: Path) -> None:
    manifest = replace(Manifest.load(whole), artifacts=built(whole, batch_size=24).artifacts)
    engines = load_engines(Exported(whole, manifest, "model.plan"), Requested("cuda:0"))
    for height, width in ((1, 1), (70, 31), (40, 220)):
        views = pixels(height, width)[None]
        np.testing.assert_allclose(engines.encoder.run(views)[0], encode(views), rtol=1e-6)
    with pytest.raises(EngineError, match="4096"):
        engines.encoder.run(np.zeros((1, 1, 4097, 3), np.uint8))
    engines.encoder.close()
    engines.head.close()
    written.fake.machine.check()


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


def test_the_gpu_that_was_named_is_the_one_that_builds(at_once: Builds, directory: Path) -> None:
    at_once.machine.gpus[1].name, at_once.machine.gpus[1].capability = "NVIDIA L4", (8, 9)
    (plan,) = built(directory, device="cuda:1").artifacts
    assert (plan.target["gpu"], plan.target["compute_capability"]) == ("NVIDIA L4", "8.9")
    assert at_once.gpus == [1, 1]
    assert at_once.machine.current == 0


# ---- the timing cache, which TensorRT for RTX takes and makes no use of


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    with pytest.warns(DeprecationWarning, match="no-ops in TensorRT-RTX"):
        yield tmp_path / "timing.bin"


def test_the_timing_cache_is_made_and_read_again(at_once: Builds, directory: Path, cache: Path) -> None:
    for _ in range(2):
        notes = built(directory, timing_cache=cache).notes
        assert not [note for note in notes if str(cache) in note]
        assert cache.stat().st_size > 0
    assert all(config.get_timing_cache() is not None for config in at_once.configs)
    assert [path.name for path in cache.parent.iterdir() if path.is_file()] == ["timing.bin"]


def test_a_timing_cache_that_cannot_be_read_or_written_costs_no_plan(
    at_once: Builds, directory: Path, cache: Path
) -> None:
    assert at_once.instead
    folder, nowhere = cache.parent / "folder", cache.parent / "nowhere" / "timing.bin"
    folder.mkdir()
    notes = built(directory, timing_cache=folder).notes
    assert f"cannot read the timing cache {folder}: Is a directory" in notes
    assert f"cannot write the timing cache {folder}: Is a directory" in notes
    notes = built(directory, timing_cache=nowhere).notes
    assert f"cannot write the timing cache {nowhere}: No such file or directory" in notes


class Config:
    """How TensorRT's configuration treats a cache of another GPU, or a damaged one, which TensorRT for RTX takes."""

    def __init__(self, *, damaged: bool) -> None:
        self.damaged = damaged
        self.asked: list[bytes] = []
        self.taken: list[bytes] = []

    def create_timing_cache(self, content: bytes) -> Any:
        self.asked.append(content)
        return None if content and self.damaged else content

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        if not cache or ignore_mismatch:
            self.taken.append(cache)
        return not cache


@pytest.mark.parametrize("damaged", [False, True])
def test_a_foreign_timing_cache_is_started_anew(tmp_path: Path, damaged: bool) -> None:
    path, config = tmp_path / "timing.bin", Config(damaged=damaged)
    path.write_bytes(b"of another GPU")
    cache = TimingCache(path)
    cache.attach(config)
    assert cache.notes == [f"{path} fits neither this GPU nor this TensorRT, or is damaged: started anew"]
    assert (config.asked, config.taken) == ([b"of another GPU", b""], [b""])
    cache.attach(config)  # the next graph's
    assert (len(cache.notes), config.taken) == (1, [b"", b""])


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


def test_the_inspector_of_either_release_is_understood(written: Written, directory: Path) -> None:
    assert built(directory).notes[1:] == ["2 of 2 attentions are fused", "29 of 29 products are fp32 in the graph"]
    assert {path.name for path in directory.iterdir()} >= {*PLANS, "model.layers.json"}
    read = read_plan((directory / "model.plan").read_bytes())
    assert read is not None
    assert (read[0].version, read[1]) == (written.fake.version, (directory / "encoder.onnx").read_bytes())


def test_the_report_is_kept_and_summed_up(written: Written, directory: Path) -> None:
    written.layers = [entry("node_matmul", "Float"), entry("node_softmax", "Float")]
    notes = built(directory).notes
    assert json.loads((directory / "model.layers.json").read_text())["Layers"] == written.layers
    assert notes[1:] == [
        "1 of 2 attentions are fused; not those of node_matmul_6",
        "29 of 29 products are fp32 in the graph",
    ]


@pytest.mark.usefixtures("written")
def test_the_inspector_is_told_a_shape(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspected = []
    whole = EngineInspector.get_engine_information

    def information(self: Any, format: Any) -> str:  # noqa: A002
        inspected.append((dict(self.execution_context.shapes), self.execution_context.memory))
        return whole(self, format)

    monkeypatch.setattr(EngineInspector, "get_engine_information", information)
    built(directory, batch_size=6)
    assert inspected == [({"views": (6, SIZE, SIZE, 3)}, (0, 0))]  # and no memory is taken for it


def test_a_report_of_unknown_layout_costs_no_plan(written: Written, directory: Path) -> None:
    written.layers = []
    assert built(directory).notes[1:] == [UNREADABLE]


def test_a_plan_that_cannot_be_inspected_is_kept(plain: Made) -> None:
    """As where there is no driver, which loading a plan takes."""
    label, unreadable, *messages = plain.built.notes
    assert label == "TensorRT 11.4.0.106: plans for NVIDIA H100 (9.0)"
    assert unreadable == UNREADABLE
    assert messages
    assert all(message.startswith("TensorRT: ") and "CUDA" in message for message in messages)


def test_warnings_are_told_once(at_once: Builds, directory: Path) -> None:
    severity = sys.modules["tensorrt"].ILogger.Severity
    at_once.warns = [(severity.WARNING, "weights\n  are subnormal."), (severity.INFO, "a layer")]
    for _ in range(2):  # encoder and head each time; what the first build said is gone in the second
        notes = built(directory).notes
        assert notes.count("TensorRT: weights are subnormal") == 1
        assert not [note for note in notes if "a layer" in note]


# ---- what goes wrong


@pytest.mark.usefixtures("real")
def test_a_graph_that_is_refused(directory: Path) -> None:
    """By TensorRT itself, since the lint does not speak of DFT, which is in a plugin that is not there."""
    model = onnx.load(directory / "head.onnx")
    model.graph.node.add(op_type="DFT", name="spectrum", input=["features"], output=["unused"])
    onnx.save(model, directory / "head.onnx")
    sentence = refused(directory)
    assert sentence.startswith("TensorRT refuses head.onnx: DFT (spectrum): ")
    assert "Plugin not found" in sentence


@pytest.mark.parametrize("version", VERSIONS)
def test_what_the_lint_refuses(monkeypatch: pytest.MonkeyPatch, directory: Path, version: str) -> None:
    """Before TensorRT is asked, whose own refusal names no remedy."""
    real_builder.install(monkeypatch, fake_cupy.install(monkeypatch), version)
    model = onnx.load(directory / "head.onnx")
    model.graph.node.add(op_type="Attention", name="mha", input=["features"] * 3, output=["unused"])
    onnx.save(model, directory / "head.onnx")
    what = {"10.12.0.36": "imported since 10.14", "11.4.0.106": "input 0 is float32"}
    assert f"does not import: Attention (mha): {what[version]}" in refused(directory)
    assert "export with --attention plain" in refused(directory)


def test_a_graph_that_is_none(real: Builds, directory: Path) -> None:
    options, shape = BuildOptions(), InputShape("views", (1,), (1,), (1,))
    for name, content in (("damaged.onnx", b"\xffno graph"), ("missing.onnx", None)):
        if content is not None:
            (directory / name).write_bytes(content)
        with pytest.raises(ExportError, match=f"^TensorRT refuses {name}: ."):
            PlanBuilder(sys.modules["tensorrt"], options).build(directory / name, shape)
    assert real.networks == []


def test_a_build_that_fails(real: Builds, directory: Path) -> None:
    assert refused(directory, workspace_gib=1e-9).startswith("TensorRT could not build head.onnx: ")
    assert len(real.networks) == 1


def test_min_above_opt_is_said_before_the_build(real: Builds, directory: Path) -> None:
    builder = PlanBuilder(sys.modules["tensorrt"], BuildOptions())
    wrong = InputShape("views", (4, SIZE, SIZE, 3), (2, SIZE, SIZE, 3), (8, SIZE, SIZE, 3))
    with pytest.raises(ExportError, match=r"^TensorRT takes no views from \(4, .*: the least must not be"):
        builder.build(directory / "encoder.onnx", wrong)
    assert real.networks == []


def test_a_profile_of_another_input_is_refused_by_the_build(real: Builds, directory: Path) -> None:
    """An empty profile is true, and taken."""
    builder = PlanBuilder(sys.modules["tensorrt"], BuildOptions())
    shape = (1, SIZE, SIZE, 3)
    with pytest.raises(ExportError, match=r"^TensorRT could not build encoder\.onnx: "):
        builder.build(directory / "encoder.onnx", InputShape("images", shape, shape, shape))
    assert real.profiles[0]
    assert real.configs[0].num_optimization_profiles == 1


def test_a_failure_is_not_explained_by_an_earlier_one(at_once: Builds, directory: Path) -> None:
    at_once.fails = "Could not find any implementation for node\n {Attention}."
    sentence = "Could not find any implementation for node {Attention}"
    assert refused(directory) == f"TensorRT could not build head.onnx: {sentence}"
    at_once.fails = "the second"
    assert refused(directory).endswith(": the second")
    at_once.fails = None
    assert not [note for note in built(directory).notes if "second" in note or sentence in note]


@pytest.mark.usefixtures("at_once")
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
        "TensorRT is not installed: pip install '.[trt]' on a machine with an NVIDIA GPU, and run this command there"
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


def test_a_driver_that_tensorrt_does_not_start_with(
    real: Builds, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the bindings raise then is in `test_bindings.py`."""
    assert real.machine.gpus

    def start(logger: Any) -> None:
        logger.log(sys.modules["tensorrt"].ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(sys.modules["tensorrt"], "Builder", start)
    assert refused(directory) == "TensorRT 11.4.0.106 does not start: CUDA initialization failure with error: 35"

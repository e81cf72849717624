"""Plans by NVIDIA's own parser and builder, those of TensorRT for RTX, which need no GPU."""

import contextlib
import io
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from spai_export.choices import Precision, TrtFor
from spai_export.cli import main
from spai_export.onnx import FUSED_OPSET, OPSET, ExportError, export_encoder
from spai_export.precision import cast
from spai_export.quantize import quantize
from spai_export.tensorrt.builder import BuildOptions, InputShape, PlanBuilder
from spai_export.tensorrt.inspector import UNREADABLE, Wanted
from spai_export.tensorrt.listing import layers_in
from spai_export.tensorrt.platforms import CAPABILITIES, FP8_CAPABILITIES, Rtx, TensorRTMissingError, ThisGpu, choose
from spai_runtime.engines.base import Contract
from spai_runtime.engines.cuda.gpu import Gpu as CudaGpu
from spai_runtime.engines.runtime_cache import RuntimeCache
from spai_runtime.engines.tensorrt_rtx import RtxProgram
from spai_runtime.engines.tensorrt_target import RtxTarget
from spai_runtime.errors import EngineError
from spai_runtime.files.private import PrivateFile
from spai_runtime.manifest import Manifest
from spai_train.checkpoint import load_checkpoint
from spai_train.detectors.spai import SPEC
from spai_train.detectors.spai.model import SPAI, SPAIConfig
from tests.golden import CHECKPOINT
from tests.gpu.fakes import fake_cupy, fake_tensorrt
from tests.gpu.fakes.fake_machine import Gpu
from tests.support.commands import Run
from tests.support.images import Write
from tests.support.models import TINY

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: it is for Linux on x86-64")

DEMO = Path(__file__).parents[2] / "weights" / "demo"


@pytest.fixture(scope="module")
def golden() -> SPAI:
    """The golden checkpoint: three blocks, heads of 64."""
    model = load_checkpoint(CHECKPOINT).model()
    assert isinstance(model, SPAI)
    return model


def views(side: int = 224, most: int = 8) -> InputShape:
    return InputShape("views", (1, side, side, 3), (most, side, side, 3), (most, side, side, 3))


def built(graph: Path, shape: InputShape, precision: Precision = Precision.FP32) -> bytes:
    """The plan of a graph."""
    rtx = Rtx.find()
    return PlanBuilder(rtx.trt, BuildOptions()).build(graph, shape, partial(rtx.configure, precision.value))


def said(graph: Path, plan: bytes) -> Sequence[str]:
    """What the user is told of the plan's layers."""
    return layers_in(plan).summary(Wanted.of(graph))


def test_the_demo_detector_builds() -> None:
    """In fp32, whose attention has no kernel of its own, whichever way it is written."""
    encoder, head = DEMO / "encoder.onnx", DEMO / "head.onnx"
    attentions, products = said(encoder, built(encoder, views()))
    assert attentions.startswith("0 of ")
    assert products.endswith("products are fp32 in the graph")
    features = Manifest.load(DEMO).features
    assert built(head, InputShape("features", (1, 1, features), (1, 16, features), (1, 4096, features)))


@pytest.fixture(scope="module")
def graphs(golden: SPAI, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Precision, bool], Path]:
    """Golden encoders by precision, and whether attention is one node; each is exported once."""
    folder = tmp_path_factory.mktemp("graphs")

    def graph(precision: Precision, fused: bool) -> Path:
        path = folder / f"{precision}{'-fused' * fused}.onnx"
        if not path.exists():
            encoder = cast(SPEC, golden.encoder, precision, fused=fused)
            export_encoder(encoder, (224, 224), path, FUSED_OPSET if fused else OPSET)
        return path

    return graph


Graphs = Callable[[Precision, bool], Path]


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
def test_every_attention_in_half_precision_is_one_kernel(graphs: Graphs, precision: Precision, fused: bool) -> None:
    graph = graphs(precision, fused)
    attentions, *products = said(graph, built(graph, views(), precision))
    assert attentions == "3 of 3 attentions are fused"
    assert products[-1].startswith("8 of ")  # those of the spectral filter
    assert products[-1].endswith(" products are fp32 in the graph")
    assert not [line for line in products if "fell out" in line]


def test_attention_as_one_node_in_fp32_is_refused(graphs: Graphs) -> None:
    assert built(graphs(Precision.FP32, False), views())
    with pytest.raises(ExportError, match="Attention operation was not supported by a dedicated kernel"):
        built(graphs(Precision.FP32, True), views())


@pytest.mark.parametrize(
    ("modelopt", "precision"),
    [("its stand-in", Precision.INT8), ("ModelOpt", Precision.INT8), ("ModelOpt", Precision.FP8)],
    indirect=["modelopt"],
)
@pytest.mark.usefixtures("modelopt")
def test_eight_bits(graphs: Graphs, tmp_path: Path, precision: Precision) -> None:
    """Attention is fused with its scales, and no product falls back; fp8 is for the three GPUs that have it."""
    graph, noise = tmp_path / "encoder.onnx", np.random.default_rng(0)
    quantize(graphs(Precision.FP16, False), precision, noise.integers(0, 256, (4, 224, 224, 3), np.uint8), graph)
    attentions, *products = said(graph, built(graph, views(), precision))
    assert attentions == "3 of 3 attentions are fused"
    assert any(re.fullmatch(rf"(\d+) of \1 {precision} products run in {precision}", line) for line in products)
    if precision is Precision.FP8:
        with pytest.raises(ExportError, match=r"Cannot compile for target\(s\) sm86.*fp8_e4m3"):
            PlanBuilder(Rtx.find().trt, BuildOptions()).build(graph, views(), ampere)
    assert Rtx.find().target(precision.value, 8, BuildOptions())["compute_capabilities"] == list(
        FP8_CAPABILITIES if precision is Precision.FP8 else CAPABILITIES
    )


def ampere(config: Any) -> None:
    """For GPUs of compute capability 8.6 alone, which have no fp8; without a target, nobody would ask."""
    config.num_compute_capabilities = 1
    assert config.set_compute_capability(Rtx.find().trt.ComputeCapability.SM86, 0)


@pytest.fixture
def modelopt(request: pytest.FixtureRequest) -> None:
    """NVIDIA's own where it is installed; what stands in for it writes the same nodes for int8, with other scales."""
    if request.param == "ModelOpt":
        pytest.importorskip("modelopt.onnx", reason="ModelOpt is not installed: pip install 'spai-toolkit[quantize]'")
    else:
        request.getfixturevalue("stand_in")


def test_vit_b_16(tmp_path: Path) -> None:
    """Three blocks of the published model, in its width, with random weights."""
    graph = tmp_path / "encoder.onnx"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = SPAI(SPAIConfig(depth=3, blocks=(0, 1, 2))).encoder.eval()
    export_encoder(cast(SPEC, encoder, Precision.FP16), (224, 224), graph, OPSET)
    del encoder
    assert said(graph, built(graph, views(most=32), Precision.FP16)) == [
        "3 of 3 attentions are fused",
        "25 of 25 fp16 products run in fp16",
        "8 of 33 products are fp32 in the graph",
    ]


# ---- what is refused


def test_the_parser_names_node_and_operator(tmp_path: Path) -> None:
    """DFT: TensorRT has it in a plugin, which TensorRT for RTX lacks."""
    graph = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 20]> g (float[views,8,1] views) => (float[views,8,2] y) '
        "{ [spectrum] y = DFT (views) }"
    )
    onnx.save(graph, tmp_path / "dft.onnx")
    with pytest.raises(ExportError, match=r"^TensorRT refuses dft\.onnx: DFT \(spectrum\): .*Plugin not found"):
        built(tmp_path / "dft.onnx", InputShape("views", (1, 8, 1), (2, 8, 1), (2, 8, 1)))


def test_what_is_no_graph(tmp_path: Path) -> None:
    (tmp_path / "encoder.onnx").write_bytes(b"no graph")
    with pytest.raises(ExportError, match=r"^TensorRT refuses encoder\.onnx: \S"):
        built(tmp_path / "encoder.onnx", views())


def test_a_plan_without_a_listing_says_nothing_of_its_layers(graphs: Graphs) -> None:
    wanted = Wanted.of(graphs(Precision.FP16, False))
    assert layers_in(b"TensorRT of another day" * 100).summary(wanted) == [UNREADABLE]


# ---- the command


@pytest.fixture(scope="module")
def exported(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """`spai-export --trt` without a GPU: the directory, and what it said."""
    directory, said = tmp_path_factory.mktemp("rtx") / "m", io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(["--ckpt", str(tiny_checkpoint), "--output", str(directory), "--trt", "--batch-size", "6"]) == 0
    return directory, said.getvalue()


def test_plans_are_built_without_a_gpu(exported: tuple[Path, str]) -> None:
    directory, said = exported
    names = {"README.md", "detector.json", "encoder.onnx", "head.onnx", "head.plan", "model.plan"}
    assert {path.name for path in directory.iterdir()} == names
    graphs, plan = Manifest.load(directory).artifacts
    assert (plan.kind, plan.precision, plan.accuracy, plan.unscored) == (
        "tensorrt-rtx",
        graphs.precision,
        None,
        "not scored on a GPU yet",
    )
    assert plan.target == {
        "tensorrt_rtx": Rtx.find().trt.__version__,
        "compute_capabilities": list(CAPABILITIES),
        "batch_size": 6,
    }
    assert plan.options["onnx_sha256"] == {graph.file: graph.sha256 for graph in (graphs.encoder, graphs.head)}
    lines = said.splitlines()
    version = plan.target["tensorrt_rtx"]
    assert (
        f"TensorRT for RTX {version}: plans for GPUs of compute capability 8.0, 8.6, 8.9, 12.0 and 12.1 "
        "(GeForce RTX 30, 40 and 50 among them)"
    ) in lines
    assert "0 of 2 attentions are fused" in lines
    check = f"`spai-run --check --engine {directory / 'model.plan'}` does that on one"
    assert re.fullmatch(rf"not scored on a GPU yet: {re.escape(check)}; done in \d+ s", lines[-1])


def test_where_no_gpu_is_the_graphs_run_and_a_plan_says_what_is_missing(
    exported: tuple[Path, str], photo: Write, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    directory, image = exported[0], photo("a.png", 70, 90)
    by_auto = run(image, "--engine", directory)
    assert (by_auto.code, by_auto.stderr.count("\n")) == (0, 1)
    assert by_auto.stderr.endswith(", cpu runs instead\n")
    named = run(image, "--engine", directory / "model.plan")
    assert (named.code, named.stdout) == (2, "")
    assert named.stderr == "spai-run: CuPy is not installed: pip install '.[rtx]'\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--timing-cache", "x"], "TensorRT for RTX has no use for --timing-cache: leave it out"),
        (["--version-compatible"], "TensorRT for RTX has no use for --version-compatible: leave it out"),
        (["--workspace", "0"], "--workspace 0 leaves TensorRT no memory to build in: leave it out for all there is"),
    ],
)
def test_options_that_no_plan_for_rtx_has(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    arguments = ["--ckpt", str(tiny_checkpoint), "--output", str(tmp_path / "m"), "--trt", "--trt-for", "rtx"]
    assert main([*arguments, *options]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_trt_for_wants_trt(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--ckpt", str(tiny_checkpoint), "--trt-for", "rtx"]) == 2
    assert "--trt-for says which plans --trt builds: give --trt too" in capsys.readouterr().err


# ---- which TensorRT


def test_without_tensorrt_or_without_a_gpu_it_is_tensorrt_for_rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(choose(BuildOptions()), Rtx)
    machine = fake_cupy.install(monkeypatch, gpus=0)
    fake_tensorrt.install(monkeypatch, machine)
    assert isinstance(choose(BuildOptions()), Rtx)
    with pytest.raises(TensorRTMissingError, match="no GPU can be used"):
        choose(BuildOptions(version_compatible=True))  # which only TensorRT has
    machine.gpus.append(Gpu(1 << 30, (9, 0), "NVIDIA H100"))
    assert isinstance(choose(BuildOptions()), ThisGpu)
    assert isinstance(choose(BuildOptions(trt_for=TrtFor.RTX)), Rtx)


def test_with_neither_both_ways_out_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(TensorRTMissingError, match=r"^TensorRT is not installed: pip install .*\.\[trt\]"):
        choose(BuildOptions(trt_for=TrtFor.GPU))
    with pytest.raises(TensorRTMissingError, match=r"^TensorRT is not .*; or pip install '\.\[rtx\]', which"):
        choose(BuildOptions())
    with pytest.raises(TensorRTMissingError, match=r"^TensorRT for RTX is not installed: pip install '\.\[rtx"):
        choose(BuildOptions(trt_for=TrtFor.RTX))


# ---- loading a plan, as far as that goes without a driver


def opened(plan: Path) -> str:
    """What is said of a plan by the real runtime of TensorRT for RTX."""
    target = RtxTarget(Rtx.find().trt.__version__, CAPABILITIES, 6)
    contract = Contract.encoder((TINY.tile_size, TINY.tile_size), TINY.features)
    gpu = CudaGpu(0, "NVIDIA GeForce RTX 4090", "8.9")
    with pytest.raises(EngineError) as raised:
        RtxProgram(Rtx.find().trt, gpu, plan, contract, target, RuntimeCache(PrivateFile(None)))
    return str(raised.value)


def test_a_damaged_plan_is_told_from_one_that_no_driver_runs(exported: tuple[Path, str], tmp_path: Path) -> None:
    plan, damaged = exported[0] / "model.plan", tmp_path / "model.plan"
    damaged.write_bytes(plan.read_bytes()[8:])
    assert opened(damaged) == (
        f"{damaged} does not run here: it is no plan of TensorRT for RTX {Rtx.find().trt.__version__}, or it is "
        "damaged: export again"
    )
    if not torch.cuda.is_available():
        assert opened(plan).startswith(f"{plan} does not run here: Error reading CUDA GPU properties")

"""Which artifact runs by what, on processors and with libraries that are imitated."""

from dataclasses import replace
from pathlib import Path

import pytest

from spai_runtime.choice import Requested, candidates
from spai_runtime.engines import processor
from spai_runtime.errors import EngineError
from spai_runtime.exported import Exported
from spai_runtime.manifest import Accuracy, Artifact, Graph, Manifest, Precision, Spread, Threshold
from spai_runtime.views import Tiles

CPU = Requested("cpu")
ALL = {"openvino", "onnxruntime", "bf16", "int8"}


def artifact(precision: Precision, device: str | None = None, *, passed: bool = True) -> Artifact:
    """A graph, made for a device if one is named."""
    graph = Graph(f"encoder.{precision}.{device}.onnx", "0" * 64)
    accuracy = Accuracy("torch", "a test", 1, 1, "a test", Spread(0.0, 0.0), 0.0, 0, 0.01, passed)
    target = {"device": device} if device else {}
    return Artifact("onnx", precision, graph, Graph("head.onnx", "1" * 64), target=target, accuracy=accuracy)


FP32, FP16, BF16 = artifact("fp32"), artifact("fp16"), artifact("bf16")
INT8, INT8_OF_GPUS = artifact("int8", "cpu"), artifact("int8")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> "Machine":
    return Machine(monkeypatch)


class Machine:
    """Libraries and instructions that are there."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def has(self, what: set[str]) -> None:
        """:param what: of ALL"""
        engines = "spai_runtime.engines"
        self._patch.setattr(f"{engines}.openvino.available", lambda: "openvino" in what)
        self._patch.setattr(f"{engines}.openvino.has_bf16", lambda: {"openvino", "bf16"} <= what)
        self._patch.setattr(f"{engines}.onnx_session.installed", lambda: "onnxruntime" in what)
        self._patch.setattr(f"{engines}.onnx_session.has_int8", lambda: {"onnxruntime", "int8"} <= what)


def chosen(*artifacts: Artifact, request: Requested = CPU, named: str | None = None) -> list[str]:
    """`back end: the precision of the artifact, and the one that is computed in`, from the best to the last."""
    manifest = Manifest("a", "spai", Tiles(224, 224), 8, Threshold(0.5, "a test"), artifacts=artifacts)
    found = candidates(Exported(Path("a"), manifest, named), request)
    return [f"{one.backend.name}: {one.artifact.precision}, {one.precision}" for one in found]


@pytest.mark.parametrize(
    ("here", "artifacts", "best"),
    [
        (ALL, [FP32], "openvino: fp32, bf16"),
        (ALL - {"bf16"}, [FP32], "openvino: fp32, fp32"),
        (ALL - {"openvino"}, [FP32], "onnxruntime: fp32, fp32"),
        (ALL, [FP32, INT8], "openvino: int8, int8"),
        (ALL - {"openvino"}, [FP32, INT8], "onnxruntime: int8, int8"),
        (ALL - {"openvino", "int8"}, [FP32, INT8], "onnxruntime: fp32, fp32"),
        (ALL, [FP32, artifact("int8", "cpu", passed=False)], "openvino: fp32, bf16"),
        (ALL, [FP32, BF16], "openvino: bf16, bf16"),
        (ALL - {"bf16"}, [FP32, BF16], "openvino: fp32, fp32"),
        (ALL - {"onnxruntime"}, [FP16], "openvino: fp16, fp16"),
        (ALL, [FP32, INT8_OF_GPUS], "openvino: fp32, bf16"),
        (ALL - {"bf16"}, [FP32, INT8_OF_GPUS], "openvino: fp32, fp32"),
        (ALL - {"openvino"}, [FP32, INT8_OF_GPUS], "onnxruntime: fp32, fp32"),
        (ALL, [INT8_OF_GPUS], "onnxruntime: int8, int8"),
    ],
)
@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_the_best_of_a_processor(
    machine: Machine, here: set[str], artifacts: list[Artifact], best: str, device: str
) -> None:
    machine.has(here)
    assert chosen(*artifacts, request=Requested(device))[0] == best


def test_the_whole_order(machine: Machine) -> None:
    machine.has(ALL)
    assert chosen(FP32, INT8, INT8_OF_GPUS) == [
        "openvino: int8, int8",
        "openvino: fp32, bf16",
        "onnxruntime: int8, int8",
        "openvino: fp32, fp32",
        "onnxruntime: fp32, fp32",
        "onnxruntime: int8, int8",
    ]


def test_what_was_made_for_a_cpu_runs_on_no_gpu(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.has(ALL)
    monkeypatch.setattr("spai_runtime.engines.onnx_session.has_cuda", lambda: True)
    assert chosen(INT8, FP32, request=Requested("auto"))[0] == "onnxruntime: fp32, fp32"
    with pytest.raises(EngineError, match="has nothing for what runs on cuda:0"):
        chosen(INT8, request=Requested("cuda:0"))


def test_a_graph_that_is_named_runs_as_it_is(machine: Machine) -> None:
    machine.has(ALL)
    assert chosen(FP32, INT8, named=FP32.encoder.file) == ["openvino: fp32, fp32", "onnxruntime: fp32, fp32"]
    in_bf16 = replace(CPU, precision="bf16")
    assert chosen(FP32, INT8, named=FP32.encoder.file, request=in_bf16) == ["openvino: fp32, bf16"]


def test_a_precision_and_no_other(machine: Machine) -> None:
    machine.has(ALL)
    assert chosen(FP32, INT8, request=Requested("cpu", precision="fp32")) == [
        "openvino: fp32, fp32",
        "onnxruntime: fp32, fp32",
    ]
    assert chosen(FP32, INT8, request=Requested(precision="bf16")) == ["openvino: fp32, bf16"]
    with pytest.raises(EngineError, match=r"^a has nothing for what runs on cpu in fp8; it has onnx fp32, onnx int8$"):
        chosen(FP32, INT8, request=Requested("cpu", precision="fp8"))


def test_without_any_library_the_last_is_tried(machine: Machine) -> None:
    """So that its sentence says what to install."""
    machine.has(set())
    assert chosen(FP32) == ["onnxruntime: fp32, fp32"]


def test_strangers_graphs_run_in_onnx_runtime_alone(machine: Machine) -> None:
    machine.has(ALL)
    assert chosen(FP32, INT8, request=Requested(untrusted=True))[0] == "onnxruntime: fp32, fp32"


@pytest.mark.parametrize(
    ("content", "multiplies"),
    [
        ("processor : 0\nflags\t\t: fpu sse avx2 avx_vnni\n", True),
        ("flags : fpu avx512f avx512_vnni\nflags : fpu\n", True),
        ("flags : fpu sse avx2 avx512f\n", False),
        ("Features\t: fp asimd asimddp\n", True),
        ("Features : fp asimd\n", False),
        ("model name : vendor with no flags\n", False),
        (None, False),
    ],
)
def test_instructions_for_int8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, multiplies: bool
) -> None:
    path = tmp_path / "cpuinfo"
    if content is not None:
        path.write_text(content)
    monkeypatch.setattr(processor, "_CPUINFO", path)
    monkeypatch.setattr("sys.platform", "linux")
    assert processor.multiplies_int8() is multiplies

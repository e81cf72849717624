"""Plans of TensorRT for RTX: which are run, which are refused and how, and what is compiled once."""

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from spai_runtime.engines import BACKENDS
from spai_runtime.engines.base import Engine
from spai_runtime.engines.tensorrt_target import RtxTarget
from spai_runtime.errors import EngineError
from spai_runtime.manifest import TENSORRT_RTX, Artifact, Graph
from tests.gpu.fakes import fake_cupy, fake_tensorrt_rtx
from tests.gpu.fakes.fake_tensorrt_plans import Header, write_plan
from tests.gpu.fakes.fake_tensorrt_rtx import FakeRtx
from tests.support.images import pixels
from tests.support.small_graphs import ENCODER, SIDE, encode, write_encoder

VERSION = "1.7.1.116"
TARGET = RtxTarget(VERSION, ("8.0", "8.6", "8.9", "12.0", "12.1"), batch_size=8)
SHAPE = "views ({}, 8, 8, 3)"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A GeForce RTX 4090."""
    return fake_cupy.install(monkeypatch, capability=(8, 9), name="NVIDIA GeForce RTX 4090")


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch, machine: Any, tmp_path: Path) -> FakeRtx:
    monkeypatch.setenv("SPAI_CACHE", str(tmp_path / "cache"))
    return fake_tensorrt_rtx.install(monkeypatch, machine, VERSION)


@pytest.fixture
def plan(tmp_path: Path, rtx: FakeRtx) -> Path:
    return write(tmp_path, rtx.version)


def write(folder: Path, version: str) -> Path:
    """The plan of a small encoder, as that version builds it."""
    graph = onnx.load(write_encoder(folder / "encoder.onnx")).SerializeToString()
    profile = {"views": [[count, SIDE, SIDE, 3] for count in (1, 8, 8)]}
    header = Header(version, (0, 0), profiles=[profile])
    path = folder / "model.plan"
    path.write_bytes(write_plan(header, graph))
    return path


def load(plan: Path, target: RtxTarget = TARGET) -> Engine:
    fields: dict[str, Any] = msgspec.to_builtins(target)
    head = Graph("head.plan", "0" * 64)
    artifact = Artifact(TENSORRT_RTX, "fp16", Graph.of(plan), head, target=fields)
    (row,) = (row for row in BACKENDS if artifact.kind in row.kinds)
    return row.open(plan, ENCODER, "cuda:0", artifact)


def kernels(folder: Path) -> list[Path]:
    """Files of what was compiled."""
    return sorted((folder / "cache" / "tensorrt-rtx").glob("*/content"))


def test_views_are_encoded(plan: Path, machine: Any) -> None:
    engine = load(plan)
    assert engine.label == "TensorRT for RTX 1.7.1.116 on NVIDIA GeForce RTX 4090, CUDA 13.0, cuda:0"
    assert engine.batch_size == 8
    views = np.stack([pixels(SIDE, SIDE, seed) for seed in range(11)])
    np.testing.assert_allclose(engine.run(views)[0], encode(views), rtol=1e-6)
    engine.close()
    machine.check()


def test_how_it_runs(plan: Path, rtx: FakeRtx) -> None:
    """Kernels are specialised before a run, not behind it: digits stay the same; memory and CUDA graphs are ours."""
    import tensorrt_rtx  # noqa: PLC0415  the fake

    slot = load(plan).acquire(4)  # type: ignore[attr-defined]
    assert slot.capacity == 4
    (config,) = rtx.configs
    assert config.dynamic_shapes_kernel_specialization_strategy == (
        tensorrt_rtx.DynamicShapesKernelSpecializationStrategy.EAGER
    )
    assert config.cuda_graph_strategy == tensorrt_rtx.CudaGraphStrategy.DISABLED
    assert (
        config.get_execution_context_allocation_strategy()
        == tensorrt_rtx.ExecutionContextAllocationStrategy.USER_MANAGED
    )
    assert [captured for _, _, captured in rtx.executions] == [False, True]


def test_what_cannot_be_recorded_is_not_tried(plan: Path, rtx: FakeRtx) -> None:
    rtx.capturable = False
    load(plan).acquire(4)  # type: ignore[attr-defined]
    assert [captured for _, _, captured in rtx.executions] == [False]
    assert rtx.machine.captures == 0


# ---- what does not run here


@pytest.mark.parametrize(
    ("diagnostic", "said"),
    [
        ("OLD_CUDA_DRIVER", "the driver of the GPU is too old for it: install a newer one"),
        ("OLD_CUDA_RUNTIME", "the CUDA runtime is too old for it: pip install '.[rtx]'"),
        ("INSUFFICIENT_GPU_MEMORY", "cuda:0 has too little memory for it: free some, or take another GPU"),
        ("CUDA_ERROR", "CUDA fails on cuda:0 (it gives no reason): check the driver"),
    ],
)
def test_each_diagnostic_is_one_sentence(plan: Path, rtx: FakeRtx, diagnostic: str, said: str) -> None:
    import tensorrt_rtx  # noqa: PLC0415  the fake, with the real enums

    rtx.diagnostics = int(getattr(tensorrt_rtx.EngineInvalidityDiagnostics, diagnostic))
    with pytest.raises(EngineError) as raised:
        load(plan)
    assert str(raised.value) == f"{plan} does not run here: {said}"


def test_every_diagnostic_has_its_sentence(plan: Path, rtx: FakeRtx) -> None:
    """Also those that a later release may add would have to be told apart: none is left out today."""
    import tensorrt_rtx  # noqa: PLC0415

    members = tensorrt_rtx.EngineInvalidityDiagnostics.__members__.values()
    rtx.diagnostics = sum(map(int, members))
    with pytest.raises(EngineError) as raised:
        load(plan)
    assert str(raised.value).count("; ") == len(members) - 1


def test_another_release(tmp_path: Path, rtx: FakeRtx) -> None:
    plan = write(tmp_path, "1.6.0.1")
    with pytest.raises(
        EngineError,
        match=r"does not run here: it was built by TensorRT for RTX 1\.6\.0\.1, and 1\.7\.1\.116 is installed: "
        r"pip install tensorrt-rtx==1\.6\.0\.1, or export again$",
    ):
        load(plan, replace(TARGET, tensorrt_rtx="1.6.0.1"))
    assert rtx.compiled == []


def test_a_gpu_that_it_is_not_for(plan: Path, rtx: FakeRtx) -> None:
    rtx.machine.gpus[0].capability, rtx.machine.gpus[0].name = (9, 0), "NVIDIA H200"
    with pytest.raises(
        EngineError,
        match=r"it is for GPUs of compute capability 8\.0, 8\.6, 8\.9, 12\.0, 12\.1, and cuda:0 is NVIDIA H200 "
        r"\(9\.0\): export for it with --trt-for gpu, or give --engine encoder\.onnx",
    ):
        load(plan)


def test_what_is_no_plan(plan: Path) -> None:
    plan.write_bytes(b"no plan" * 20)
    with pytest.raises(EngineError, match=r"it is no plan of TensorRT for RTX 1\.7\.1\.116, or it is damaged"):
        load(plan)


def test_what_may_be_slow_runs(plan: Path, rtx: FakeRtx, caplog: pytest.LogCaptureFixture) -> None:
    rtx.diagnostics, rtx.suboptimal = 4, True
    assert load(plan).batch_size == 8
    assert caplog.messages == [f"{plan} may be slow here: the driver of the GPU is too old for it: install a newer one"]


def test_without_the_library_or_cupy(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (("tensorrt_rtx", "TensorRT for RTX"), ("cupy", "CuPy")):
        monkeypatch.setitem(__import__("sys").modules, module, None)
        with pytest.raises(EngineError, match=rf"^{name} is not installed: pip install '\.\[rtx\]'$"):
            load(plan)


# ---- what is compiled once


def test_what_was_compiled_is_kept(plan: Path, tmp_path: Path, rtx: FakeRtx, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "spai_runtime")
    with_slot(plan)
    assert rtx.compiled == [SHAPE.format(4)]
    (file,) = kernels(tmp_path)
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert caplog.messages == [
        f"compiling {plan} for NVIDIA GeForce RTX 4090, once",
        f"compiled {plan} in 0 s",
    ]
    caplog.clear()
    with_slot(plan)
    assert rtx.compiled == [SHAPE.format(4)]
    assert caplog.messages == []


@pytest.mark.parametrize("kept", [True, False])
def test_several_batches_in_flight_are_one_compilation(
    plan: Path, rtx: FakeRtx, kept: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not kept:
        monkeypatch.setenv("SPAI_CACHE", str(plan))  # which is a file
    caplog.set_level(logging.INFO, "spai_runtime")
    engine = load(plan)
    slots = [engine.acquire(4) for _ in range(3)]  # type: ignore[attr-defined]
    assert len(slots) == 3 and rtx.compiled == [SHAPE.format(4)]
    assert [message.split()[0] for message in caplog.messages if "compil" in message.split()[0]] == [
        "compiling",
        "compiled",
    ]
    engine.close()


def with_slot(plan: Path, capacity: int = 4) -> None:
    """Loads it, runs a batch of that size, and closes it."""
    engine = load(plan)
    engine.acquire(capacity)  # type: ignore[attr-defined]
    engine.close()


def test_other_batch_sizes_are_kept_when_it_is_closed(plan: Path, tmp_path: Path, rtx: FakeRtx) -> None:
    engine = load(plan)
    engine.run(np.zeros((3, SIDE, SIDE, 3), np.uint8))
    assert kernels(tmp_path) == []
    engine.close()
    engine = load(plan)
    engine.run(np.zeros((3, SIDE, SIDE, 3), np.uint8))
    assert rtx.compiled == [SHAPE.format(3)]


@pytest.mark.parametrize("other", ["GPU", "driver", "plan"])
def test_it_belongs_to_one_gpu_driver_and_plan(plan: Path, tmp_path: Path, rtx: FakeRtx, other: str) -> None:
    with_slot(plan)
    if other == "GPU":
        rtx.machine.gpus[0].name = "NVIDIA GeForce RTX 5090"
    elif other == "driver":
        rtx.driver = "13.1"  # of the same CUDA release: TensorRT for RTX itself refuses what is there
    else:
        plan.write_bytes(plan.read_bytes().replace(b'"flags": []', b'"flags" :[]'))
    with_slot(plan)
    assert rtx.compiled == 2 * [SHAPE.format(4)]
    assert len(kernels(tmp_path)) == (1 if other == "driver" else 2)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows keeps users apart by folders")
@pytest.mark.parametrize("how", ["open to others", "a link"])
def test_a_folder_that_others_can_write_is_not_read(
    plan: Path, tmp_path: Path, rtx: FakeRtx, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    with_slot(plan)
    folder = kernels(tmp_path)[0].parent
    if how == "a link":
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.chmod(0o770)
    with_slot(plan)
    assert rtx.compiled == 2 * [SHAPE.format(4)]
    (said,) = caplog.messages
    assert said == (
        f"what was compiled before is not read from {folder}: it should be a folder of your own that nobody else may "
        f"enter (chmod 700 {folder})"
    )


def test_a_cache_that_cannot_be_written_costs_no_run(
    plan: Path, rtx: FakeRtx, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> Any:
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr("spai_runtime.files.private.atomic_write", full)
    with_slot(plan)
    assert rtx.compiled == [SHAPE.format(4)]
    (said,) = caplog.messages
    assert said.startswith("cannot keep what was compiled in ")
    assert said.endswith(": No space left on device")


def test_a_cache_that_cannot_be_read_costs_no_run(
    plan: Path, tmp_path: Path, rtx: FakeRtx, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    with_slot(plan)
    assert rtx.compiled == [SHAPE.format(4)]
    (said,) = caplog.messages
    assert said.endswith(": Not a directory")

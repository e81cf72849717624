"""Plans: which are run, which are refused and how, and what is recorded as CUDA graphs."""

import gc
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from spai_runtime.engines.base import Contract, DeviceLostError, DeviceMemoryError, Slot
from spai_runtime.engines.cuda.engine import CudaEngine, CudaSlot
from spai_runtime.engines.tensorrt_program import TensorRTExecution
from spai_runtime.engines.tensorrt_target import Target
from spai_runtime.errors import EngineError
from spai_runtime.images import Picture
from spai_runtime.scoring.device_batcher import DeviceBatcher
from spai_runtime.scoring.in_flight import BatchInFlight
from spai_runtime.views import Tiles
from tests.gpu.fakes import fake_tensorrt
from tests.gpu.fakes.fake_tensorrt_plans import Shapes, plan_of
from tests.gpu.fakes.fake_tensorrt_types import FakeTensorRT
from tests.support.encodings import encoding
from tests.support.images import pixels
from tests.support.loading import crops_of, load_plan
from tests.support.small_graphs import ENCODER, HEAD, SIDE, WIDTH, encode, write_encoder, write_head

VERSION = "11.4.0.106"
TARGET = Target(VERSION, "NVIDIA H100", "9.0", batch_size=8)


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch, machine: Any) -> Any:
    return fake_tensorrt.install(monkeypatch, machine, VERSION)


def build(trt: FakeTensorRT, onnx: Path, name: str, shapes: Shapes, *flags: str) -> Path:
    """ONNX → plan. :param shapes: least, best and largest"""
    plan = onnx.with_suffix(".plan")
    plan.write_bytes(plan_of(trt, onnx, name, shapes, *flags))
    return plan


def encoder_shapes(least: int = 1, largest: int = 8) -> Shapes:
    return [(count, SIDE, SIDE, 3) for count in (least, largest, largest)]


@pytest.fixture
def encoder_plan(tmp_path: Path, trt: Any) -> Path:
    return build(trt, write_encoder(tmp_path / "encoder.onnx"), "views", encoder_shapes())


@pytest.fixture
def encoder(encoder_plan: Path) -> CudaEngine:
    engine = load_plan(encoder_plan, ENCODER, "cuda:0", TARGET)
    assert isinstance(engine, CudaEngine)
    return engine


@pytest.fixture
def head(tmp_path: Path, trt: Any) -> CudaEngine:
    shapes = [(1, views, WIDTH) for views in (1, 4, 100)]
    engine = load_plan(build(trt, write_head(tmp_path / "head.onnx"), "features", shapes), HEAD, "cuda:0", TARGET)
    assert isinstance(engine, CudaEngine)
    return engine


def launch(slot: Slot, seed: int, bucket: int) -> NDArray[np.float32]:
    """:returns: what `wait` must return"""
    image = pixels(2 * SIDE, 2 * SIDE, seed)
    sent, layout = slot.upload(image), Tiles(SIDE, SIDE, 4).layout(*image.shape[:2])
    slot.launch(crops_of(sent, layout)[:bucket], bucket)
    return encode(layout.stack(Picture.from_array(image)))[:bucket]


def recorded(slot: Slot) -> bool:
    assert isinstance(slot, CudaSlot)
    return slot.recorded


def check(slot: Slot, seed: int, bucket: int = 4) -> None:
    expected = launch(slot, seed, bucket)
    np.testing.assert_allclose(slot.wait(), expected, rtol=1e-6)


def test_slots_launch_graphs(encoder: CudaEngine, machine: Any, trt: Any) -> None:
    """Each runs once as it is, is recorded, and is launched from then on."""
    slots = [encoder.acquire(4) for _ in range(2)]
    shape = (4, SIDE, SIDE, 3)
    assert all(recorded(slot) for slot in slots)
    assert trt.executions == [(0, shape, False), (0, shape, True)] * 2
    for seed in range(3):
        expected = [launch(slot, 10 * seed + number, 4) for number, slot in enumerate(slots)]
        for slot, features in zip(slots, expected, strict=True):
            np.testing.assert_allclose(slot.wait(), features, rtol=1e-6)
    assert (machine.captures, machine.graph_launches, len(trt.executions)) == (2, 6, 4)
    machine.check()


def test_smaller_buckets_in_the_same_slot(encoder: CudaEngine, machine: Any) -> None:
    slot = encoder.acquire(8)
    for bucket in (2, 8, 1, 2, 8):
        check(slot, bucket, bucket)
    assert (machine.captures, machine.graph_launches) == (1, 2)


def test_a_slot_takes_the_memory_of_its_batch(encoder: CudaEngine, machine: Any) -> None:
    """Not of the largest that the plan takes."""
    used, slots = [], []
    for capacity in (1, 8):
        before = machine.gpus[0].used
        slots.append(encoder.acquire(capacity))
        used.append(machine.gpus[0].used - before)
    activations = 4 * 7 * SIDE * SIDE * 3  # float32, of the seven views more
    assert used[1] - used[0] > activations


def test_a_network_that_cannot_be_recorded(encoder: CudaEngine, machine: Any, trt: Any, monkeypatch: Any) -> None:
    """It runs all the same."""
    import cupy  # noqa: PLC0415  the fake

    real = cupy.cuda.Stream.end_capture

    def fails(stream: Any) -> None:
        real(stream)
        raise cupy.cuda.runtime.CUDARuntimeError(901)

    monkeypatch.setattr(cupy.cuda.Stream, "end_capture", fails)
    slot = encoder.acquire(4)
    check(slot, 1)
    assert not recorded(slot)
    assert machine.graph_launches == 0
    assert [captured for _, _, captured in trt.executions] == [False, True, False]


def test_nobody_uses_a_gpu_while_one_records(encoder: CudaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A free of another thread's, for example, waits for all that runs on the GPU, and so for what is recorded."""
    import cupy  # noqa: PLC0415  the fake

    real, events = cupy.cuda.Stream.end_capture, list[str]()
    thread = threading.Thread(target=lambda: (encoder.allocate((9, 9, 3)), events.append("allocated")))

    def slowly(stream: Any) -> Any:
        thread.start()
        thread.join(0.1)
        events.append("recorded")
        return real(stream)

    monkeypatch.setattr(cupy.cuda.Stream, "end_capture", slowly)
    slot = encoder.acquire(4)
    thread.join()
    assert events == ["recorded", "allocated"]
    assert recorded(slot)


def test_arrays(encoder: CudaEngine) -> None:
    generator = np.random.default_rng(0)
    batches = [generator.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8) for count in (1, 8, 19)]
    for found, batch in zip(encoder.run_all(batches), batches, strict=True):
        np.testing.assert_allclose(found[0], encode(batch), rtol=1e-6)


def test_a_head_runs_every_shape_without_graphs(head: CudaEngine, machine: Any) -> None:
    """Enqueued all, shapes that grow and shrink, then waited for."""
    generator = np.random.default_rng(0)
    batches = [generator.normal(size=(images, views, WIDTH)).astype(np.float32) for images, views in
               ((1, 5), (1, 100), (3, 2), (1, 1), (1, 60))]  # fmt: skip
    for (logit, attention), batch in zip(head.run_all(batches), batches, strict=True):
        np.testing.assert_allclose(logit, batch.mean((1, 2))[:, None], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(attention, batch.mean(2), rtol=1e-5, atol=1e-6)
    assert machine.captures == 0


def test_an_image_of_too_many_views(head: CudaEngine, trt: Any) -> None:
    with pytest.raises(EngineError, match="101 views at once are more than the 100 that the plan was built for: crop"):
        head.run_all([np.zeros((1, 3, WIDTH), np.float32), np.zeros((1, 101, WIDTH), np.float32)])
    assert trt.executions == []


def test_what_it_is(encoder: CudaEngine) -> None:
    assert encoder.as_device_engine is encoder
    assert (encoder.device, encoder.label, encoder.batch_size) == ("cuda:0", f"TensorRT {VERSION}, cuda:0", 8)
    with pytest.raises(EngineError, match=r"9 views at once are more than the 8 .*: give --batch-size 8"):
        encoder.acquire(9)


def test_several_gpus(encoder_plan: Path, machine: Any) -> None:
    engine = load_plan(encoder_plan, ENCODER, "cuda:0,1", TARGET)
    assert engine.as_device_engine is engine
    assert engine.label == f"TensorRT {VERSION}, cuda:0,1"
    slots = [replica.acquire(4) for replica in engine.replicas]
    for slot in slots:
        check(slot, 1)
    machine.lose(1)
    with pytest.raises(DeviceLostError, match="cuda:1 stopped working"):
        check(slots[1], 2)
    engine.discard("cuda:1")
    check(slots[0], 3)


def test_closing(encoder: CudaEngine, machine: Any) -> None:
    slots = [encoder.acquire(4) for _ in range(2)]
    encoder.run(np.zeros((2, SIDE, SIDE, 3), np.uint8))
    for slot in slots:
        encoder.release(slot)
    del slots, slot
    encoder.close()
    gc.collect()
    assert machine.gpus[0].used == 0


def test_too_little_memory(encoder: CudaEngine, trt: Any, machine: Any) -> None:
    encoder.run(np.zeros((1, SIDE, SIDE, 3), np.uint8))
    trt.contexts_left = 0
    with pytest.raises(DeviceMemoryError, match=r"cuda:0 has too little memory, give a smaller .*: .*OutOfMemory"):
        encoder.acquire(4)
    trt.contexts_left = None
    machine.fail_allocation(after=3, times=9)  # of the slot's buffers, then none for activations
    with pytest.raises(DeviceMemoryError):
        encoder.acquire(4)
    machine.fail_allocation(times=0)
    check(encoder.acquire(4), 1)


def test_a_plan_that_does_not_fit(encoder_plan: Path, machine: Any) -> None:
    machine.gpus[0].memory = 16
    with pytest.raises(DeviceMemoryError, match="cuda:0 has too little memory"):
        load_plan(encoder_plan, ENCODER, "cuda:0", TARGET)


def test_a_run_that_tensorrt_refuses(encoder: CudaEngine, trt: Any) -> None:
    trt.executions_left = 0
    with pytest.raises(EngineError, match=r"TensorRT failed on cuda:0: .*unspecified launch failure") as caught:
        encoder.run(np.zeros((1, SIDE, SIDE, 3), np.uint8))
    assert type(caught.value) is EngineError


@pytest.mark.parametrize("after", [None, 0, 1])
def test_a_gpu_that_is_lost(encoder: CudaEngine, machine: Any, after: int | None) -> None:
    """At once, at the cropping kernel, at the plan."""
    slot = encoder.acquire(4)
    machine.lose(0, after)
    with pytest.raises(DeviceLostError, match="cuda:0 stopped working"):
        check(slot, 1)
    encoder.release(slot)
    encoder.close()


def test_without_tensorrt(encoder_plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match=r"TensorRT is not installed: pip install '\.\[trt\]'"):
        load_plan(encoder_plan, ENCODER, "cuda:0", TARGET)


def test_another_version(encoder_plan: Path) -> None:
    message = (
        r"encoder\.plan was built by TensorRT 10\.12\.0\.36, and 11\.4\.0\.106 is installed: "
        r"pip install tensorrt==10\.12\.0\.36, or export again here"
    )
    with pytest.raises(EngineError, match=message):
        load_plan(encoder_plan, ENCODER, "cuda:0", replace(TARGET, tensorrt="10.12.0.36"))


def test_another_gpu(encoder_plan: Path) -> None:
    message = (
        r"encoder\.plan was built for NVIDIA A100 \(8\.0\), and cuda:1 is NVIDIA H100 \(9\.0\): run spai-export --trt"
    )
    with pytest.raises(EngineError, match=message):
        load_plan(encoder_plan, ENCODER, "cuda:1", replace(TARGET, gpu="NVIDIA A100", compute_capability="8.0"))


@pytest.mark.parametrize(
    ("flags", "lean"),
    [
        (["VERSION_COMPATIBLE"], True),
        (["VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"], False),
        ([], False),
    ],
)
def test_a_later_version(
    tmp_path: Path, machine: Any, monkeypatch: pytest.MonkeyPatch, flags: list[str], lean: bool
) -> None:
    """A plan that brings a runtime along, which is code and must be allowed, runs; others are of one version alone."""
    trt = fake_tensorrt.install(monkeypatch, machine, "11.1.0.2")
    path = build(trt, write_encoder(tmp_path / "encoder.onnx"), "views", encoder_shapes(), *flags)
    target = replace(TARGET, tensorrt="11.1.0.2", version_compatible=bool(flags), lean_runtime=lean)
    load_plan(path, ENCODER, "cuda:0", target)
    fake_tensorrt.install(monkeypatch, machine, VERSION)
    if lean:
        check(load_plan(path, ENCODER, "cuda:0", target).acquire(4), 1)  # type: ignore[attr-defined]
        return
    message = (
        "pip install tensorrt-lean==11.1.0.2, or export again" if flags else "was built by TensorRT 11.1.0.2, and 11.4"
    )
    with pytest.raises(EngineError, match=message):
        load_plan(path, ENCODER, "cuda:0", target)
    fake_tensorrt.install(monkeypatch, machine, "11.1.0.2", lean=True)
    if flags:  # beside a TensorRT that does not run it
        assert load_plan(path, ENCODER, "cuda:0", target).label == "TensorRT 11.1.0.2, cuda:0"


def test_code_in_a_plan_is_not_run_unless_it_is_expected(tmp_path: Path, trt: Any) -> None:
    path = build(trt, write_encoder(tmp_path / "encoder.onnx"), "views", encoder_shapes(), "VERSION_COMPATIBLE")
    with pytest.raises(EngineError, match="setEngineHostCodeAllowed"):
        load_plan(path, ENCODER, "cuda:0", replace(TARGET, version_compatible=True))


def test_an_earlier_version(encoder_plan: Path) -> None:
    with pytest.raises(EngineError, match=r"was built by TensorRT 11\.5\.0\.1, and 11\.4\.0\.106 is installed"):
        load_plan(encoder_plan, ENCODER, "cuda:0", replace(TARGET, tensorrt="11.5.0.1", version_compatible=True))


def test_what_is_no_plan(encoder_plan: Path) -> None:
    encoder_plan.write_bytes(b"no plan")
    with pytest.raises(
        EngineError, match=r"TensorRT refuses .*encoder\.plan: .*magicTag.*; export again on this machine"
    ):
        load_plan(encoder_plan, ENCODER, "cuda:0", TARGET)
    encoder_plan.unlink()
    with pytest.raises(EngineError, match=r"cannot read .*encoder\.plan: No such file"):
        load_plan(encoder_plan, ENCODER, "cuda:0", TARGET)


@pytest.mark.parametrize(
    ("contract", "message"),
    [
        (
            Contract.encoder((SIDE, SIDE), 5),
            r"it should have features float32 \(views, 5\), and has features .* \(-1, 3\)",
        ),
        (
            Contract.encoder((9, 9), WIDTH),
            r"it should have views uint8 \(views, 9, 9, 3\), and has views .* \(-1, 8, 8, 3\)",
        ),
        (HEAD, r"it should have features float32 \(images, views, 3\), and has views, features"),
        (Contract(ENCODER.input, ()), "it also has features"),
    ],
)
def test_a_plan_that_does_not_match(encoder_plan: Path, contract: Contract, message: str) -> None:
    with pytest.raises(EngineError, match=rf"encoder\.plan does not match detector\.json: {message}"):
        load_plan(encoder_plan, contract, "cuda:0", TARGET)


def test_a_plan_that_takes_no_single_view(tmp_path: Path, trt: Any) -> None:
    path = build(trt, write_encoder(tmp_path / "encoder.onnx"), "views", encoder_shapes(least=2))
    with pytest.raises(EngineError, match="it takes 2 views at least, and should take 1"):
        load_plan(path, ENCODER, "cuda:0", TARGET)


@pytest.mark.parametrize("version", ["10.12.0.36", "11.4.0.106"])
def test_both_generations(tmp_path: Path, machine: Any, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    trt = fake_tensorrt.install(monkeypatch, machine, version)
    path = build(trt, write_encoder(tmp_path / "encoder.onnx"), "views", encoder_shapes())
    engine = load_plan(path, ENCODER, "cuda:0", replace(TARGET, tensorrt=version))
    check(engine.acquire(4), 1)  # type: ignore[attr-defined]


MOST = 12


def ours(values: Iterable[Any]) -> Iterator[type]:
    """The classes of ours among some values, and among what a list or tuple of them holds."""
    for value in values:
        if type(value).__module__.startswith("spai_runtime"):
            yield type(value)
        elif isinstance(value, (list, tuple)):
            yield from ours(value)


def test_few_classes_lie_between_a_batch_and_tensorrt(encoder: CudaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whatever a reader meets on the way: as `self`, an argument, a variable, or held by what runs the plan."""
    real, met = TensorRTExecution.enqueue, set[type]()

    def watched(execution: TensorRTExecution, *arguments: Any) -> None:
        frame: FrameType | None = sys._getframe()
        met.update(ours(vars(execution).values()))
        while frame is not None:
            met.update(ours(frame.f_locals.values()))
            frame = None if frame.f_code is BatchInFlight.launch.__code__ else frame.f_back
        real(execution, *arguments)

    with DeviceBatcher(encoder, 4) as batcher:
        batcher.ready()
        monkeypatch.setattr(TensorRTExecution, "enqueue", watched)
        taken = encoding(pixels(SIDE, 4 * SIDE), Tiles(SIDE, SIDE, 1), WIDTH, encoder.allocate)
        batcher.add(taken)
        batcher.flush()
    assert taken.done
    assert {one.__name__ for one in met} >= {
        "BatchInFlight",
        "Crop",
        "CudaSlot",
        "TensorRTExecution",
        "TensorRTProgram",
    }
    assert len(met) <= MOST, met

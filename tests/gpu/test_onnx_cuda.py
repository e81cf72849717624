"""ONNX Runtime on CUDA: what it is asked for, and that nothing is waited for but what must be.

The provider is a fake around ONNX Runtime on the CPU. It reads and writes the pointers that are bound, when the stream
that it was given gets there.
"""

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from spai_runtime.engines.base import Contract, DeviceLostError, DeviceMemoryError, Slot
from spai_runtime.engines.cuda.engine import CudaEngine, CudaSlot
from spai_runtime.errors import EngineError
from spai_runtime.images import Picture
from spai_runtime.views import Tiles
from tests.gpu.fakes.fake_machine import GLOBAL
from tests.support.images import pixels
from tests.support.loading import crops_of, load_graph
from tests.support.small_graphs import ENCODER, HEAD, SIDE, encode, write_encoder, write_head

Real = onnxruntime.InferenceSession
NO_GRAPH = "-1"

# Words of microsoft/onnxruntime: CUDACall, BFCArena, InferenceSession.
LOST = "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; expr=cudaStreamSynchronize(stream)"
FULL = "bfc_arena.cc:376 AllocateRawInternal Failed to allocate memory for requested buffer of size 4294967296"
CUDNN_FULL = "CUDNN failure 4002: CUDNN_STATUS_ALLOC_FAILED ; GPU=0"
SPOILT = "CUDA failure 901: operation failed due to a previous error during capture ; GPU=0"
ON_CPU = (
    "This session cannot use the graph capture feature as requested by the user as all compute graph nodes have not "
    "been partitioned to the CUDAExecutionProvider"
)


class Binding:
    """onnxruntime.IOBinding"""

    def __init__(self, session: "Session") -> None:
        self.session = session
        self.inputs: list[tuple[Any, ...]] = []
        self.outputs: list[tuple[Any, ...]] = []

    def bind_input(self, *where: Any) -> None:
        self.inputs.append(where)

    def bind_output(self, *where: Any) -> None:
        self.outputs.append(where)


class Session:
    """onnxruntime.InferenceSession with CUDA first."""

    machine: Any
    opened: list["Session"]
    meanwhile: Callable[[], None] = staticmethod(lambda: None)  # what happens while it records
    refuses = ""

    def __init__(self, path: str, settings: Any, providers: list[Any], enable_fallback: int = 1) -> None:
        ((name, self.options),) = providers
        assert enable_fallback == 0, "ONNX Runtime would go on without the provider"
        self.real = Real(path, settings, providers=["CPUExecutionProvider"])
        self.name, self.failures = name, list[str]()
        self.runs: list[tuple[int, str | None]] = []  # views, and the graph that was asked for
        self.recorded: dict[tuple[int, str], Callable[[], None]] = {}
        self.released: list[int] = []
        if name == "CPUExecutionProvider":
            return
        assert name == "CUDAExecutionProvider"
        assert all(isinstance(value, str) for value in self.options.values())
        self.stream = self.machine.stream(int(self.options["user_compute_stream"]))
        assert self.stream.non_blocking
        assert self.stream.device_id == int(self.options["device_id"]) == self.machine.current
        self.opened.append(self)
        if self.refuses:
            raise RuntimeError(self.refuses)

    def get_providers(self) -> list[str]:
        return list(dict.fromkeys([self.name, "CPUExecutionProvider"]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)  # get_inputs, get_outputs, run

    def io_binding(self) -> Binding:
        return Binding(self)

    def run_with_iobinding(self, binding: Binding, options: Any) -> None:
        assert binding.session is self
        assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"
        graph = self._graph(options)
        self.runs.append((binding.inputs[0][4][0], graph))
        run = self._on_pointers(binding)
        if graph in {None, NO_GRAPH}:
            self._fail()
            self.stream.enqueue(run, launch=True)
            return
        key = threading.get_ident(), graph
        if key in self.recorded:
            self._fail()
        else:
            self.stream.begin_capture(GLOBAL)
            self.meanwhile()
            self._fail()
            self.stream.end_capture()
            self.recorded[key] = run
        self.stream.enqueue(self.recorded[key], launch=True)  # whatever is bound now

    def release_captured_graph(self, graph_annotation_id: int = 0) -> None:
        """Of every thread; what was never recorded is no error."""
        assert type(graph_annotation_id) is int
        assert not self.stream.queue, "its runs are under way"
        self.released.append(graph_annotation_id)
        for key in [key for key in self.recorded if key[1] == str(graph_annotation_id)]:
            del self.recorded[key]

    def _graph(self, options: Any) -> str | None:
        try:
            graph: str = options.get_run_config_entry("gpu_graph_id")
        except RuntimeError:
            graph = ""
        if self.options.get("enable_cuda_graph") != "1":
            return None
        assert graph not in {"", "0"}, "the first run of any shape would be replayed for all"
        return graph

    def _fail(self) -> None:
        if self.failures:
            raise RuntimeError(self.failures.pop(0))

    def _on_pointers(self, binding: Binding) -> Callable[[], None]:
        """ONNX Runtime's own binding, to the same addresses: they are the CPU's too."""
        real = self.real.io_binding()
        for bind, places in ((real.bind_input, binding.inputs), (real.bind_output, binding.outputs)):
            for name, kind, index, dtype, shape, pointer in places:
                assert (kind, index) == ("cuda", self.stream.device_id)
                memory = self.machine.find(pointer)
                assert memory.device == index
                assert not memory.freed
                bind(name, "cpu", 0, dtype, shape, pointer)
        return lambda: self.real.run_with_iobinding(real)


@pytest.fixture
def sessions(machine: Any, monkeypatch: pytest.MonkeyPatch) -> list[Session]:
    """Those that were opened on CUDA, in order."""
    opened: list[Session] = []
    monkeypatch.setattr(Session, "machine", machine, raising=False)
    monkeypatch.setattr(Session, "opened", opened, raising=False)
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    return opened


@pytest.fixture
def encoder(tmp_path: Path, sessions: list[Session]) -> CudaEngine:
    assert sessions == []
    engine = load_graph(write_encoder(tmp_path / "encoder.onnx"), ENCODER, "cuda:0")
    assert isinstance(engine, CudaEngine)
    return engine


def launch(slot: Slot, seed: int, bucket: int) -> Any:
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


def test_what_an_encoder_is_asked_for(encoder: CudaEngine, sessions: list[Session]) -> None:
    (session,) = sessions
    assert {key: session.options[key] for key in ("device_id", "use_tf32", "enable_cuda_graph")} == {
        "device_id": "0",
        "use_tf32": "0",
        "enable_cuda_graph": "1",
    }
    assert encoder.as_device_engine is encoder
    assert (encoder.device, encoder.batch_size) == ("cuda:0", 32)
    assert encoder.label == f"ONNX Runtime {onnxruntime.__version__}, cuda:0"


def test_slots_replay_a_graph_each(encoder: CudaEngine, sessions: list[Session]) -> None:
    slots = [encoder.acquire(4) for _ in range(2)]
    for seed in range(3):
        expected = [launch(slot, 10 * seed + number, 4) for number, slot in enumerate(slots)]
        for slot, features in zip(slots, expected, strict=True):
            np.testing.assert_allclose(slot.wait(), features, rtol=1e-6)
    first, second = (f"{number}" for number in (1, 2))
    assert sessions[0].runs == [(4, first), (4, second)] + 3 * [(4, first), (4, second)]


def test_a_launch_waits_for_nothing(encoder: CudaEngine, sessions: list[Session]) -> None:
    slot = encoder.acquire(4)
    launch(slot, 0, 4)
    assert not slot.done()
    assert len(sessions[0].stream.queue) > 0
    slot.wait()


def test_smaller_buckets_run_without_a_graph(encoder: CudaEngine, sessions: list[Session]) -> None:
    slot = encoder.acquire(4)
    for bucket in (2, 4, 1):
        check(slot, bucket, bucket)
    assert sessions[0].runs[1:] == [(2, NO_GRAPH), (4, "1"), (1, NO_GRAPH)]


def test_another_thread_runs_without_the_graph(encoder: CudaEngine, sessions: list[Session]) -> None:
    """ONNX Runtime has graphs for each thread: this one would record, in the middle of everything."""
    slot = encoder.acquire(4)
    found = []

    def other() -> None:
        found.append(recorded(slot))
        check(slot, 1)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    check(slot, 2)
    assert [*found, recorded(slot)] == [False, True]
    assert sessions[0].runs[1:] == [(4, NO_GRAPH), (4, "1")]


@pytest.mark.parametrize("message", [SPOILT, "CUDA failure 900: no", "CUDA failure 907: no ; GPU=0"])
def test_a_recording_that_is_spoilt_is_made_again(encoder: CudaEngine, sessions: list[Session], message: str) -> None:
    sessions[0].failures = [message]
    slot = encoder.acquire(4)
    assert recorded(slot)
    check(slot, 1)
    assert sessions[0].runs == [(4, "1"), (4, "2"), (4, "2")]


def test_a_recording_that_is_spoilt_every_time(encoder: CudaEngine, sessions: list[Session]) -> None:
    """Whatever the library says that stumbles over it."""
    (session,), cublas = sessions, "CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED ; GPU=0"

    def spoil() -> None:
        session.stream.invalid = True
        session.failures = [cublas]

    session.meanwhile = spoil
    slot = encoder.acquire(4)
    assert session.stream.recorded is None
    assert not recorded(slot)
    check(slot, 1)
    assert session.runs == [(4, "1"), (4, "2"), (4, "3"), (4, NO_GRAPH), (4, NO_GRAPH)]


def test_nobody_interferes_with_a_recording(encoder: CudaEngine, sessions: list[Session]) -> None:
    """What other threads of the process do on GPUs would spoil it: they wait until it is made."""
    (session,), failures, over = sessions, list[BaseException](), threading.Event()
    session.meanwhile = lambda: over.wait(0.02)

    def rival() -> None:
        try:
            slot = encoder.acquire(2)
            while not over.is_set():
                encoder.allocate((9, 9, 3))
                check(slot, 1, 2)
        except BaseException as error:
            failures.append(error)

    slots = [encoder.acquire(4)]
    threads = [threading.Thread(target=rival) for _ in range(2)]
    for thread in threads:
        thread.start()
    slots += [encoder.acquire(size) for size in (4, 3, 1)]
    over.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert all(recorded(slot) for slot in slots)
    assert len({graph for _, graph in session.runs} - {NO_GRAPH}) == len(slots) + len(threads)  # none was made twice


def test_arrays(encoder: CudaEngine, sessions: list[Session]) -> None:
    generator = np.random.default_rng(0)
    batches = [generator.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8) for count in (1, 5, 3)]
    for found, batch in zip(encoder.run_all(batches), batches, strict=True):
        np.testing.assert_allclose(found[0], encode(batch), rtol=1e-6)
    assert sessions[0].runs == [(1, NO_GRAPH), (5, NO_GRAPH), (3, NO_GRAPH)]


def test_a_head_has_no_graphs(tmp_path: Path, sessions: list[Session]) -> None:
    engine = load_graph(write_head(tmp_path / "head.onnx"), HEAD, "cuda:1")
    assert "enable_cuda_graph" not in sessions[0].options
    batches = [np.random.default_rng(views).normal(size=(1, views, 3)).astype(np.float32) for views in (5, 1, 9)]
    for (logit, attention), batch in zip(engine.run_all(batches), batches, strict=True):
        np.testing.assert_allclose(logit, batch.mean((1, 2))[:, None], rtol=1e-5)
        np.testing.assert_allclose(attention, batch.mean(2), rtol=1e-5)
    assert engine.device == "cuda:1"


def test_graphs_of_closed_slots_are_given_back(encoder: CudaEngine, sessions: list[Session]) -> None:
    (session,), slots = sessions, [encoder.acquire(size) for size in (4, 4, 2)]
    session.failures = [SPOILT]
    slots.append(encoder.acquire(3))
    assert len(session.recorded) == 4
    launch(slots[1], 1, 4)
    slots[1].close()
    assert session.released == [2]
    check(slots[0], 1)
    for slot in slots:
        slot.close()
    assert sorted(session.released) == [1, 2, 3, 4, 5]  # the fourth was spoilt
    assert session.recorded == {}


def test_a_graph_that_cannot_be_given_back(
    encoder: CudaEngine, sessions: list[Session], machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a GPU that was lost, for example: closing goes on."""
    used, slot = machine.gpus[0].used, encoder.acquire(4)

    def fails(_: int) -> None:
        raise RuntimeError(LOST)

    monkeypatch.setattr(sessions[0], "release_captured_graph", fails)
    slot.close()
    assert machine.gpus[0].used == used


def test_a_release_that_gives_no_graphs_back(encoder: CudaEngine, sessions: list[Session]) -> None:
    """Those before 1.31."""
    slot = encoder.acquire(4)
    sessions[0].release_captured_graph = None  # type: ignore[assignment,method-assign]
    slot.close()
    encoder.close()
    slot.close()


def test_closing(encoder: CudaEngine, machine: Any) -> None:
    encoder.release(encoder.acquire(4))
    encoder.close()
    gc.collect()
    assert machine.gpus[0].used == 0


@pytest.mark.parametrize("message", [FULL, CUDNN_FULL, "CUDA failure 2: out of memory ; GPU=0"])
def test_too_little_memory(encoder: CudaEngine, sessions: list[Session], message: str) -> None:
    slot = encoder.acquire(4)
    sessions[0].failures = [message]
    with pytest.raises(DeviceMemoryError, match="cuda:0 has too little memory, give a smaller --batch-size: "):
        launch(slot, 0, 4)
    check(slot, 1, 2)
    sessions[0].failures = [message]
    with pytest.raises(DeviceMemoryError):
        encoder.acquire(3)


def test_a_gpu_that_is_lost(encoder: CudaEngine, sessions: list[Session]) -> None:
    slot = encoder.acquire(4)
    sessions[0].failures = [LOST]
    with pytest.raises(DeviceLostError, match="cuda:0 stopped working: CUDA failure 700"):
        launch(slot, 0, 4)


def test_without_cudnn(encoder: CudaEngine, sessions: list[Session]) -> None:
    """Since 1.28 the provider is loaded without it, and the first convolution says so."""
    sessions[0].failures = ["cuDNN is unavailable or disabled for CUDA Execution Provider: cuDNN is not available. Ins"]
    with pytest.raises(EngineError, match=r"finds no cuDNN, which this graph needs: pip install '\.\[gpu\]'"):
        encoder.run(np.zeros((1, SIDE, SIDE, 3), np.uint8))


def test_other_failures(encoder: CudaEngine, sessions: list[Session]) -> None:
    sessions[0].failures = ["Non-zero status code\nwhile running Attention node"]
    with pytest.raises(
        EngineError, match="ONNX Runtime failed on cuda:0: Non-zero status code while running"
    ) as caught:
        encoder.run(np.zeros((1, SIDE, SIDE, 3), np.uint8))
    assert type(caught.value) is EngineError


@pytest.mark.parametrize(
    ("refusal", "kind", "message"),
    [
        (ON_CPU, EngineError, r"would run a part of .*encoder\.onnx on the CPU: pip install --upgrade onnxruntime-gpu"),
        (FULL, DeviceMemoryError, "cuda:0 has too little memory"),
        ("Load model failed\nmore", EngineError, r"ONNX Runtime refuses .*encoder\.onnx: Load model failed$"),
    ],
)
def test_sessions_that_do_not_start(
    tmp_path: Path, sessions: list[Session], monkeypatch: pytest.MonkeyPatch, refusal: str, kind: type, message: str
) -> None:
    monkeypatch.setattr(Session, "refuses", refusal)
    with pytest.raises(kind, match=message):
        load_graph(write_encoder(tmp_path / "encoder.onnx"), ENCODER, "cuda:0")
    assert len(sessions) == 1


def test_a_graph_that_does_not_match(tmp_path: Path, sessions: list[Session]) -> None:
    with pytest.raises(
        EngineError, match=r"does not match detector\.json: it should have features float32 \(views, 5\)"
    ):
        load_graph(write_encoder(tmp_path / "encoder.onnx"), Contract.encoder((SIDE, SIDE), 5), "cuda:0")
    assert len(sessions) == 1


def test_several_gpus(tmp_path: Path, sessions: list[Session]) -> None:
    engine = load_graph(write_encoder(tmp_path / "encoder.onnx"), ENCODER, "cuda:1,0")
    assert engine.as_device_engine is engine
    assert [replica.device for replica in engine.replicas] == ["cuda:1", "cuda:0"]
    assert engine.label == f"ONNX Runtime {onnxruntime.__version__}, cuda:1,0"
    for replica in engine.replicas:
        check(replica.acquire(4), 1)
    assert [session.options["device_id"] for session in sessions] == ["1", "0"]
    with pytest.raises(EngineError, match="there is no cuda:7: this machine has 2 GPUs"):
        load_graph(tmp_path / "encoder.onnx", ENCODER, "cuda:0,7")

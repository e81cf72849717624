"""Recording CUDA graphs alone, and trying again where somebody else records."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from spai_runtime.engines.base import DeviceBusyError
from spai_runtime.engines.cuda import recording
from spai_runtime.engines.cuda.recording import RecordingLock, retried

LONG = 30  # seconds, after which a test has hung
SOON = 0.05  # in which a thread that nothing holds up gets there


class Thread:
    """One that stops where the test tells it to."""

    def __init__(self, stack: ExitStack, within: Callable[[], object]) -> None:
        self.there, self.leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(within,), daemon=True)
        self._thread.start()
        stack.callback(self.finish)

    def _run(self, within: Callable[[], object]) -> None:
        with within():  # type: ignore[attr-defined]
            self.there.set()
            assert self.leave.wait(LONG)

    def finish(self) -> None:
        self.leave.set()
        self._thread.join(LONG)
        assert not self._thread.is_alive()


@pytest.fixture
def lock() -> RecordingLock:
    return RecordingLock()


@pytest.fixture
def threads() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def using(lock: RecordingLock) -> Callable[[], object]:
    @contextmanager
    def within() -> Iterator[None]:
        lock.enter()
        try:
            yield
        finally:
            lock.leave()

    return within


def recording_alone(lock: RecordingLock) -> Callable[[], object]:
    @contextmanager
    def within() -> Iterator[None]:
        lock.enter()
        with lock.alone():
            yield
        lock.leave()

    return within


def test_many_use_at_once(lock: RecordingLock, threads: ExitStack) -> None:
    for thread in [Thread(threads, using(lock)) for _ in range(3)]:
        assert thread.there.wait(LONG)


def test_who_records_waits_for_all_and_lets_none_in(lock: RecordingLock, threads: ExitStack) -> None:
    first, second = (Thread(threads, using(lock)) for _ in range(2))
    assert first.there.wait(LONG) and second.there.wait(LONG)
    recorder = Thread(threads, recording_alone(lock))
    first.finish()
    assert not recorder.there.wait(SOON)
    late = Thread(threads, using(lock))
    second.finish()
    assert recorder.there.wait(LONG)
    assert not late.there.wait(SOON)
    recorder.finish()
    assert late.there.wait(LONG)


def test_two_that_record_take_turns(lock: RecordingLock, threads: ExitStack) -> None:
    """Both are within already, and neither waits for the other to leave."""
    barrier = threading.Barrier(2)

    @contextmanager
    def within() -> Iterator[None]:
        lock.enter()
        barrier.wait(LONG)
        with lock.alone():
            yield
        lock.leave()

    pair = [Thread(threads, within) for _ in range(2)]
    while not any(thread.there.wait(SOON) for thread in pair):
        pass
    (first,), (second,) = ([one for one in pair if one.there.is_set() == there] for there in (True, False))
    assert not second.there.wait(SOON)
    first.finish()
    assert second.there.wait(LONG)


def test_a_thread_that_is_within_goes_deeper(lock: RecordingLock, threads: ExitStack) -> None:
    """Also while somebody waits for it to leave, and while it records itself."""
    lock.enter()
    recorder = Thread(threads, recording_alone(lock))
    assert not recorder.there.wait(SOON)
    lock.enter()
    lock.leave()
    lock.leave()
    assert recorder.there.wait(LONG)
    recorder.finish()
    lock.enter()
    with lock.alone():
        lock.enter()
        lock.leave()
    lock.leave()


def test_a_recording_that_fails_lets_others_in(lock: RecordingLock, threads: ExitStack) -> None:
    lock.enter()
    with pytest.raises(ZeroDivisionError), lock.alone():
        1 / 0  # noqa: B018
    user = Thread(threads, using(lock))
    assert user.there.wait(LONG)
    lock.leave()
    user.finish()
    assert Thread(threads, recording_alone(lock)).there.wait(LONG)


@pytest.mark.parametrize(("failures", "calls"), [(0, 1), (2, 3), (99, len(recording.PAUSES) + 1)])
def test_what_is_refused_while_somebody_records_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, failures: int, calls: int
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(recording.time, "sleep", pauses.append)
    called: list[int] = []

    @retried
    def call(value: int) -> int:
        called.append(value)
        if len(called) <= failures:
            raise DeviceBusyError("cuda:0", "cudaErrorStreamCaptureUnsupported")
        return value

    if failures == 99:
        with pytest.raises(DeviceBusyError, match=r"cuda:0 refuses .* while a CUDA graph is recorded \(cudaErrorStr"):
            call(7)
    else:
        assert call(7) == 7
    assert called == [7] * calls
    assert pauses == list(recording.PAUSES)[: calls - 1]
    assert sum(recording.PAUSES) < 2  # seconds that a call may take longer


def test_other_failures_are_raised_at_once() -> None:
    called: list[int] = []

    @retried
    def call() -> None:
        called.append(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call()
    assert called == [1]

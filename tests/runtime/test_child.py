"""A child process answers, and ends where it passes a limit, whatever it was doing; its parent goes on."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spai_runtime.child import Child, ChildError, ChildMemoryError, ChildTimeError, Limits
from spai_runtime.errors import ImageError

ROOMY = Limits(memory=1 << 30, cpu_seconds=60, seconds=60)
SERVICES = "tests.support.services"


@pytest.fixture
def child() -> Iterator[Child]:
    with Child(f"{SERVICES}:misbehave", None, ROOMY) as started:
        yield started


def limited(memory: int = ROOMY.memory, cpu_seconds: float = 60, seconds: float = 60) -> Child:
    return Child(f"{SERVICES}:misbehave", None, Limits(memory, cpu_seconds, seconds))


def test_it_gives_back_what_it_was_given() -> None:
    random = np.random.default_rng(0)
    arrays = [
        random.integers(0, 256, (5, 7, 3), np.uint8),
        random.normal(size=(4, 6)).astype(np.float32)[:, ::2],  # not contiguous
        random.normal(size=3).astype(">f8"),
        np.zeros((0, 4), np.float32),
        np.array(True),
        np.frombuffer(b"the bytes of a file", np.uint8),
    ]
    with Child(f"{SERVICES}:echo", {"colour": "blue"}, ROOMY) as child:
        body, found = child.ask({"a": [1, None, "\u00e9"]}, arrays, most=1 << 20)
        assert (body["settings"], body["body"]) == ({"colour": "blue"}, {"a": [1, None, "\u00e9"]})
        for one, other in zip(found, arrays, strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype.newbyteorder("=")
        assert child.ask(most=0)[0]["process"] == body["process"] != os.getpid()


def test_more_than_a_pipe_holds_goes_both_ways() -> None:
    large = np.arange(3 << 20, dtype=np.int64)
    with Child(f"{SERVICES}:echo", None, ROOMY) as child:
        np.testing.assert_array_equal(child.ask(None, [large], most=large.nbytes)[1][0], large)


@pytest.mark.parametrize(
    ("limits", "deed", "kind", "message"),
    [
        ({"memory": 1 << 28}, "allocate", ChildMemoryError, "it takes more than 0.2 GiB of memory"),
        ({"cpu_seconds": 1}, "spin", ChildTimeError, "it takes more than 1 s of processor time"),
        ({"seconds": 1}, "sleep", ChildTimeError, "it takes more than 1 s"),
        ({"seconds": 1}, "spin", ChildTimeError, "it takes more than 1 s"),
        ({}, "kill", ChildError, "its process ended by signal 9"),
        ({}, "abort", ChildError, "its process ended by signal 6"),
        ({}, "exit", ChildError, "its process ended with code 3"),
        ({}, "nonsense", ChildError, "its process does not answer as it should: a head of"),
        ({}, "a head without end", ChildError, "a head of 1099511627776 bytes"),
        ({}, "a large answer", ChildError, "arrays of 65536 bytes, where 1000 were expected at most"),
    ],
)
def test_it_ends_and_the_next_request_starts_another(
    limits: dict[str, Any], deed: str, kind: type[ChildError], message: str
) -> None:
    with limited(**limits) as child:
        first, _ = child.ask("process", most=0)
        with pytest.raises(kind, match=message) as caught:
            child.ask(deed, most=1000)
        assert type(caught.value) is kind
        assert not Path(f"/proc/{first}").exists()
        assert child.ask("process", most=0)[0] not in (first, os.getpid())


@pytest.mark.parametrize(
    ("deed", "kind", "message"),
    [("image error", ImageError, "^no image: at all$"), ("bug", ChildError, "its process failed: KeyError: 'absent'")],
)
def test_an_error_is_raised_here_and_the_child_goes_on(
    child: Child, deed: str, kind: type[Exception], message: str
) -> None:
    first = child.ask("process", most=0)
    with pytest.raises(kind, match=message):
        child.ask(deed, most=0)
    assert child.ask("process", most=0) == first


def test_time_is_that_of_one_request() -> None:
    with limited(cpu_seconds=60, seconds=1.5) as child:
        for _ in range(4):
            child.ask("process", most=0)
            time.sleep(0.5)


def test_settings_that_are_refused_are_refused_again() -> None:
    with Child(f"{SERVICES}:misbehave", "refuse", ROOMY) as child:
        for _ in range(2):
            with pytest.raises(ImageError, match="these settings are refused"):
                child.ask("process", most=0)


def test_it_writes_no_file(tmp_path: Path) -> None:
    with (
        Child(f"{SERVICES}:misbehave", str(tmp_path / "a"), ROOMY) as child,
        pytest.raises(ChildError, match="OSError"),
    ):
        child.ask("write", most=0)
    assert (tmp_path / "a").stat().st_size == 0


def test_nothing_of_the_working_directory_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("numpy", "msgspec", "signal"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(5)")
    monkeypatch.chdir(tmp_path)
    with limited() as child:
        child.start()


def test_a_child_that_ended_meanwhile_is_replaced(child: Child) -> None:
    first, _ = child.ask("process", most=0)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: os.waitid(os.P_PID, first, os.WEXITED | os.WNOHANG | os.WNOWAIT))  # all its threads have ended
    assert child.ask("process", most=0)[0] != first


def test_closing_ends_it_whatever_it_does() -> None:
    with limited() as child:
        process, _ = child.ask("process", most=0)
    assert not Path(f"/proc/{process}").exists()


def test_threads_take_turns(child: Child) -> None:
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(child.ask("process", most=0)[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


ORPHAN = f"""
from spai_runtime.child import Child, Limits
child = Child("{SERVICES}:misbehave", None, Limits(1 << 30, 60, 60))
print(child.ask("process", most=0)[0], flush=True)
child.ask("DEED", most=0)
"""


@pytest.mark.parametrize("deed", ["sleep", "spin"])
def test_it_ends_with_its_parent_whatever_it_does(deed: str) -> None:
    command = [sys.executable, "-c", ORPHAN.replace("DEED", deed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        process = int(parent.stdout.readline())
        parent.kill()
    wait_for(lambda: not Path(f"/proc/{process}").exists() or "Z" in Path(f"/proc/{process}/stat").read_text())


def test_the_parents_limits_stay(child: Child) -> None:
    kinds = resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_CORE, resource.RLIMIT_FSIZE
    before = [resource.getrlimit(kind) for kind in kinds]
    child.start()
    assert [resource.getrlimit(kind) for kind in kinds] == before


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)

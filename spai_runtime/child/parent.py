"""The parent's side: it starts a child, sends it requests, and ends it when it passes a limit."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from spai_runtime.child.limits import OUT_OF_MEMORY, Limits
from spai_runtime.child.message import Array, Message, raised, read, write
from spai_runtime.closing import Closing
from spai_runtime.errors import UserError

_START = "import sys; sys.path[:] = sys.argv[3:]; from spai_runtime.child.process import main; main(*sys.argv[1:3])"

# Address space that glibc and OpenBLAS reserve for every thread is no memory that anyone uses, and would count.
_FRUGAL = {"MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}

_LONGEST_START = 120.0  # seconds until Python runs and our own code is imported, on a machine that is very busy


class ChildError(UserError):
    """The child stopped, or its code failed. The message continues a sentence that names what the child worked on."""


class ChildStartError(ChildError):
    """The system cannot start another process, or has no pipes left to talk to one."""


class ChildMemoryError(ChildError):
    """The child passed its limit of memory."""


class ChildTimeError(ChildError):
    """The child passed its limit of processor time, or the deadline."""


class Child(Closing):
    """A process of ours that answers one request after the other, within limits. Use it in a `with`, or `close` it.

    It is a new Python process and not a fork, so the parent may have threads. It starts with the first request;
    after it was ended, the next request starts it again. It has the parent's rights: the limits bound what a request
    costs, but they are no sandbox against code. When the parent ends, in whatever way, the child ends too. Several
    threads may ask; each waits for its turn.

    :param service: `module:function`, a `Service`. The child calls it once, with the settings. It returns the function
        that answers: from a body and arrays it makes a body and arrays. If either raises a UserError, `ask` raises it;
        what they print is lost
    :param settings: any value that JSON can hold
    :param limits: for each request, and for `service` itself
    """

    def __init__(self, service: str, settings: Any, limits: Limits) -> None:
        self._service, self._settings, self._limits = service, settings, limits
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._late = False

    def start(self) -> None:
        """Start the process if it does not run. :raises UserError: see `ask`"""
        with self._lock:
            self._running()

    def ask(self, body: Any = None, arrays: Sequence[Array] = (), *, most: int) -> tuple[Any, Sequence[Array]]:
        """Send one request, and wait for its answer.

        :param body: any value that JSON can hold
        :param most: the bytes that the arrays of the answer may hold together
        :returns: the answer's body and arrays; their shapes and types are what the child chose, so check them
        :raises ChildMemoryError, ChildTimeError: the child passed a limit, and was ended
        :raises ChildError: the child stopped, its code failed, or its answer is not valid
        :raises UserError: the child raised it
        """
        with self._lock:
            return self._exchange(self._running(), Message(body, arrays), most)

    def close(self) -> None:
        """End the process at once."""
        with self._lock:
            self._end()

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is not None:
            self._end()  # it ended by itself, which its next start mends
        return self._process or self._started()

    def _started(self) -> "subprocess.Popen[bytes]":
        self._process = process = self._spawned()
        with self._ended_by(_LONGEST_START):
            self._receive(process, 0)
        try:
            self._exchange(process, Message(self._settings), 0)
        except UserError:
            self._end()  # the next request would be taken for its settings
            raise
        return process

    def _spawned(self) -> "subprocess.Popen[bytes]":
        # -P: what lies in the working directory is not imported. Then the modules are those that the parent imports.
        command = [sys.executable, "-P", "-c", _START, self._service, self._limits.encode(), *sys.path]
        pipe, nothing, environment = subprocess.PIPE, subprocess.DEVNULL, {**os.environ, **_FRUGAL}
        try:
            return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nothing, env=environment)
        except OSError as error:
            raise ChildStartError(f"no process could be started for it: {error.strerror}") from error

    def _exchange(self, process: "subprocess.Popen[bytes]", request: Message, most: int) -> tuple[Any, Sequence[Array]]:
        with self._ended_by(self._limits.seconds):
            with suppress(OSError):  # it is gone, which reading tells
                write(_pipe(process.stdin), request)
            answer = self._receive(process, most)
        if answer.error:
            raise raised(answer) or _fault(answer)
        return answer.body, answer.arrays

    def _receive(self, process: "subprocess.Popen[bytes]", most: int) -> Message:
        try:
            return read(_pipe(process.stdout), most)
        except EOFError as error:
            process.wait()
            raise self._why(process.returncode) from error
        except ValueError as error:  # which msgspec's errors are
            raise ChildError(f"its process does not answer as it should: {error}") from error

    @contextmanager
    def _ended_by(self, seconds: float) -> Iterator[None]:
        """End the child after so many seconds, and also when the exchange stops before it is complete."""
        process = self._process
        assert process is not None
        self._late, timer = False, threading.Timer(seconds, self._expire, [process])
        timer.daemon = True
        timer.start()
        try:
            yield
        except BaseException:
            self._end()
            raise
        finally:
            timer.cancel()
        if self._late:
            self._end()  # after its answer

    def _expire(self, process: "subprocess.Popen[bytes]") -> None:
        self._late = True
        process.kill()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    _pipe(pipe).close()

    def _why(self, code: int) -> ChildError:
        if self._late:
            return ChildTimeError(f"it takes more than {self._limits.seconds:g} s")
        if code == OUT_OF_MEMORY:
            return ChildMemoryError(f"it takes more than {self._limits.memory / 2**30:.1f} GiB of memory")
        if code == -getattr(signal, "SIGXCPU", 0):
            return ChildTimeError(f"it takes more than {self._limits.cpu_seconds:g} s of processor time")
        ended = f"by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"with code {code}"
        return ChildError(f"its process ended {ended}")


def _fault(answer: Message) -> ChildError:
    return ChildError(f"its process failed: {' '.join(str(answer.body).split())}")


def _pipe(stream: Any) -> BinaryIO:
    assert stream is not None
    return stream  # type: ignore[no-any-return]

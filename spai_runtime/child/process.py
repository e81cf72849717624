"""The child's side: it does what its parent asks, one request after the other, until the parent has ended."""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from queue import SimpleQueue
from typing import Any, BinaryIO, NoReturn

from spai_runtime.child.limits import OUT_OF_MEMORY, Limits
from spai_runtime.child.message import Array, Message, failure, read, write

Answer = tuple[Any, Sequence[Array]]
Handler = Callable[[Any, Sequence[Array]], Answer]  # (body, arrays) of a request → those of the answer
# The settings of a child → what answers its requests. Where its module has a function `prepare`, that is called first,
# and what it takes does not count: it is for the libraries that the service needs.
Service = Callable[[Any], Handler]


def main(service: str, limits: str) -> NoReturn:
    """Run the service until the parent has ended.

    :param service: `module:function`, a Service
    :param limits: as `Limits.encode` writes them
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which ends this
    requests, replies = pipes()
    name, _, function = service.partition(":")
    module, held, waiting = import_module(name), Limits.decode(limits), SimpleQueue[Message]()
    make: Service = getattr(module, function)
    getattr(module, "prepare", lambda: None)()
    threading.Thread(target=_listen, args=(requests, waiting), daemon=True).start()
    held.hold()
    write(replies, Message())  # from here on the parent's clock runs
    handle: Handler | None = None
    while True:
        request = waiting.get()
        held.arm()
        try:
            if handle is None:
                answer, handle = Message(), make(request.body)
            else:
                answer = Message(*handle(request.body, request.arrays))
            write(replies, answer)
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        except Exception as error:
            write(replies, failure(error))


def _listen(requests: BinaryIO, waiting: "SimpleQueue[Message]") -> NoReturn:
    """Wait for requests in a separate thread, so that this process ends with its parent, whatever it is doing then."""
    code = 0
    try:
        while True:
            waiting.put(read(requests))
    except MemoryError:
        code = OUT_OF_MEMORY
    finally:
        os._exit(code)


def pipes() -> tuple[BinaryIO, BinaryIO]:
    """The pipes for requests and for answers; a library that prints cannot reach them."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(nothing, standard)
    return requests, replies

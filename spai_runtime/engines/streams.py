"""Streams: how the batches of an engine on the CPU share the cores."""

from typing import NamedTuple

from spai_runtime.cores import cores
from spai_runtime.engines.base import Contract

THREADS = 4  # of a stream, as OpenVINO has them itself where more than 16 processors are there


class Share(NamedTuple):
    """How batches share the cores.

    :param streams: the number of batches that run at the same time
    :param threads: the threads of each batch
    """

    streams: int
    threads: int


def share(available: int) -> Share:
    """Divide the cores among streams, since many threads of one stream wait long for each other after each operator.

    If there are few cores, one batch has them all. From 8 cores on, a batch has 4 to 7 of them: the number that leaves
    the fewest cores over, and the smallest such number. The cores that are left decode.

    :param available: the number of cores, at least 1
    """
    if available < 2 * THREADS:
        return Share(1, available)
    threads = min(range(THREADS, 2 * THREADS), key=lambda threads: available % threads)
    return Share(available // threads, threads)


def share_of(contract: Contract) -> Share:
    """How the batches of an engine share the cores that this process may use.

    Several batches of equal views run at a time. A head, and an encoder that takes whole images, run alone: nobody
    gives them a second batch meanwhile, and two large images at once would need the memory of two.
    """
    equal = all(isinstance(axis, int) for axis in contract.input.shape[1:])
    return share(cores()) if equal else Share(1, cores())

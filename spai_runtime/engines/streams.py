"""Streams: how the batches of an engine on the CPU share the cores."""

from typing import NamedTuple

from spai_runtime.cores import cores
from spai_runtime.engines.base import Contract

THREADS = 4  # of a stream, as OpenVINO has them itself where more than 16 processors are there


class Share(NamedTuple):
    """How batches share the cores.

    :param streams: batches that run at the same time
    :param threads: of each
    """

    streams: int
    threads: int


def share(available: int) -> Share:
    """A stream's threads wait for each other at the end of every operator, and the more they are, the longer.

    On few cores one batch has them all. From 8 cores on a batch has 4 to 7 of them: as many as leave no core over, or
    the fewest. What is left over decodes.

    :param available: cores, at least 1
    """
    if available < 2 * THREADS:
        return Share(1, available)
    threads = min(range(THREADS, 2 * THREADS), key=lambda threads: available % threads)
    return Share(available // threads, threads)


def share_of(contract: Contract) -> Share:
    """How the batches of an engine share the cores that this process may use.

    Batches of equal views run several at a time. A head, and an encoder that takes images whole, run alone: nobody
    gives them a second batch meanwhile, and two large images at once would need the memory of two.
    """
    equal = all(isinstance(axis, int) for axis in contract.input.shape[1:])
    return share(cores()) if equal else Share(1, cores())

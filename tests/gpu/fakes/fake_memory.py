"""Bytes of a GPU and pinned ones, which begin as poison and lie between guards."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tests.gpu.fakes.fake_streams import Stream

POISON, GUARD, ALIGNMENT = 0xCD, 0xFD, 512


class Memory:
    """Bytes of a GPU, or pinned ones (device None), between guards; the machine keeps them when they are freed.

    CuPy gives them to somebody else in the order of the stream that was current when they were allocated: what that
    stream was to do before may still be done, and what any other does is done to somebody else's.
    """

    def __init__(self, device: int | None, nbytes: int, stream: "Stream | None") -> None:
        self.device, self.nbytes, self.stream = device, nbytes, stream
        self.freed = self.gone = False
        self.size = max(-(-nbytes // ALIGNMENT), 1) * ALIGNMENT
        self.arena = np.full(self.size + 3 * ALIGNMENT, GUARD, np.uint8)
        start = ALIGNMENT + -self.arena.ctypes.data % ALIGNMENT
        self.bytes = self.arena[start : start + nbytes]
        self.bytes[:] = POISON
        self.before, self.after = self.arena[start - ALIGNMENT : start], self.arena[start + nbytes :]
        self.address = self.arena.ctypes.data + start

    def view(self, address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Those bytes as an array; the arena outlives everyone who looks at it."""
        return np.ndarray(shape, dtype, buffer=self.bytes.data, offset=address - self.address)

    def access(self, stream: "Stream | None", *, write: bool) -> None:
        """Every operation on these bytes; where they are somebody else's, it reads poison and must not write."""
        if self.gone or (self.freed and stream is not self.stream):
            assert not write, "written to memory that was freed"
            self.bytes[:] = POISON

    def vanish(self) -> None:
        self.gone, self.bytes[:] = True, POISON

    @property
    def intact(self) -> bool:
        return bool((self.before == GUARD).all() and (self.after == GUARD).all())

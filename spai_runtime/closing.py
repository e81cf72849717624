"""The base of everything that is used in a `with`, or closed."""

from types import TracebackType
from typing import Protocol, Self


class Closing(Protocol):
    """A base class whose `with` ends in `close`."""

    def close(self) -> None:
        """Release what is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

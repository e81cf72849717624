"""Errors of trainings that cannot go on, with what to change."""

from collections.abc import Iterator
from contextlib import contextmanager

from spai_runtime.errors import UserError
from spai_train.memory import out_of_memory


class TrainingError(UserError):
    """A training that cannot go on, and what to change, in one sentence."""


@contextmanager
def memory_advice(images: int) -> Iterator[None]:
    """:param images: how many images one process takes at once
    :raises TrainingError: memory has run out inside
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory with {images} images at once: raise accumulate, or set precision=bf16, "
            "checkpointing=true or a lower batch_size; --resume goes on from the last state"
        ) from error

"""The names that a user may give for devices."""

from spai_runtime.errors import EngineError


def gpus(device: str) -> tuple[int, ...]:
    """The GPUs that a device names: `cuda` and `cuda:0` → (0,), `cuda:0,1` → (0, 1), `auto` and `cpu` → ().

    :raises EngineError: it is none of these names, or names a GPU twice
    """
    if device in ("auto", "cpu"):
        return ()
    kind, _, names = (device + ":0" if device == "cuda" else device).partition(":")
    indices = names.split(",")
    if kind != "cuda" or not all(index.isascii() and index.isdigit() for index in indices):
        raise EngineError(
            f"no such device: {device or 'an empty name'}; use auto, cpu, cuda:0, or cuda:0,1 for two GPUs"
        )
    numbers = tuple(map(int, indices))
    if len(set(numbers)) < len(numbers):
        raise EngineError(f"{device} names a GPU twice")
    return numbers

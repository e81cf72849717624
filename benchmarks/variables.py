"""What a benchmark's settings take from the environment: `SPAI_BENCH_<NAME>`."""

from collections.abc import Callable, Mapping
from typing import Any

Readers = Mapping[str, Callable[[str], Any]]


def words(text: str) -> tuple[str, ...]:
    """Of a list with commas."""
    return tuple(word.strip() for word in text.split(","))


def given(readers: Readers, environment: Mapping[str, str]) -> dict[str, Any]:
    """The variables that are set, by the names of the settings.

    :param readers: of each setting, by name
    """
    texts = {name: environment.get(f"SPAI_BENCH_{name.upper()}") for name in readers}
    return {name: readers[name](text) for name, text in texts.items() if text}


def wanted(name: str, chosen: tuple[str, ...]) -> bool:
    """Whether a contender of that name takes part: it holds one of the words; none is all."""
    return not chosen or any(word.lower() in name.lower() for word in chosen)

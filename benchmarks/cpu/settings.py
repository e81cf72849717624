"""What a run measures, and for how long: the one place that reads the environment.

`SPAI_BENCH_MODEL`     vitb (default, the published size), medium, or tiny, which tries the benchmark out in seconds
`SPAI_BENCH_SECONDS`   of a turn of an encoder (default 2); of a run from JPEGs and of latencies, five times that
`SPAI_BENCH_ROUNDS`    turns that the encoders take (default 5); runs from JPEGs take two
`SPAI_BENCH_SCENES`    of the demo detector's test set that AUCs are measured on (default 120)
`SPAI_BENCH_BACKENDS`  contenders whose name holds one of these words, e.g. `int8,OpenVINO fp32`; default all
`SPAI_BENCH_PARTS`     of encoder, scores, latency, start, run, beside; default all
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from variables import Readers, given, wanted, words

ENCODER, SCORES, LATENCY, START, RUN, BESIDE = PARTS = ("encoder", "scores", "latency", "start", "run", "beside")
CORES = {"one_core": 1, "two_cores": 2}  # that latencies are measured on
READERS: Readers = {
    "model": str,
    "seconds": float,
    "rounds": int,
    "scenes": int,
    "backends": words,
    "parts": words,
}


@dataclass(frozen=True)
class Settings:
    """See the module.

    :param backends: words, one of which a contender's name must hold; none is all
    """

    model: str = "vitb"
    seconds: float = 2.0
    rounds: int = 5
    scenes: int = 120
    backends: tuple[str, ...] = ()
    parts: tuple[str, ...] = PARTS

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Of the variables that are set; the others keep their defaults."""
        return cls(**given(READERS, environment))

    def wants(self, name: str) -> bool:
        """Whether a contender of that name takes part."""
        return wanted(name, self.backends)

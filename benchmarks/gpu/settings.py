"""What a run measures, and for how long: the one place that reads the environment.

`SPAI_BENCH_MODEL`     vitb (default, the published size), medium or tiny
`SPAI_BENCH_BATCHES`   tiles a launch; the first is what contenders must be seen at before anything else
`SPAI_BENCH_SECONDS`   of each measurement (default 1)
`SPAI_BENCH_ROUNDS`    turns that the contenders take (default 3)
`SPAI_BENCH_LIMIT`     seconds after which nothing new is begun (default 420)
`SPAI_BENCH_BACKENDS`  contenders whose name holds one of these words, e.g. `upstream,TensorRT fp16`; default all
`SPAI_BENCH_PARTS`     rows (encoders alone), end-to-end (`spai-run` from JPEGs); default both
`SPAI_BENCH_COMPILE`   mode of torch.compile: reduce-overhead (default), max-autotune-no-cudagraphs, default
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from variables import Readers, given, wanted, words

from spai_runtime.engines.base import GPU_BATCH_SIZE

ROWS, END_TO_END = "rows", "end-to-end"


READERS: Readers = {
    "model": str,
    "batches": lambda text: tuple(map(int, text.split(","))),
    "seconds": float,
    "rounds": int,
    "limit": float,
    "backends": words,
    "parts": words,
    "compile": str,
}


@dataclass(frozen=True)
class Settings:
    """See the module.

    :param backends: words, one of which a contender's name must hold; none is all
    :param limit: seconds
    """

    model: str = "vitb"
    batches: tuple[int, ...] = (GPU_BATCH_SIZE, 1, 4 * GPU_BATCH_SIZE)
    seconds: float = 1.0
    rounds: int = 3
    limit: float = 420.0
    backends: tuple[str, ...] = ()
    parts: tuple[str, ...] = (ROWS, END_TO_END)
    compile: str = "reduce-overhead"

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Of the variables that are set; the others keep their defaults."""
        return cls(**given(READERS, environment))

    def wants(self, name: str) -> bool:
        """Whether a contender of that name takes part."""
        return wanted(name, self.backends)

"""What is run on a GPU, in this order. A step is a process or two, with a time limit for all of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

FOLDER = "{folder}"  # in arguments: the step's own, for its results


@dataclass(frozen=True)
class Command:
    """:param arguments: of Python
    :param variables: of the environment
    """

    arguments: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """:param what: for whoever chooses steps
    :param limit: seconds, for all commands together
    :param commands: run one after the other, the next one also where one failed
    :param said: what the last line must hold
    """

    name: str
    what: str
    limit: float
    commands: Sequence[Command]
    said: str = ""


# The model that is done in seconds goes first: what does not work at all is seen there.
TINY = {"SPAI_BENCH_MODEL": "tiny", "SPAI_BENCH_BATCHES": "8,1", "SPAI_BENCH_SECONDS": "0.2"}
PUBLISHED = {"SPAI_BENCH_MODEL": "vitb"}
UPSTREAM = "upstream"  # it takes turns with the contenders of every step, which are compared with it


def _rows(contenders: str) -> list[Command]:
    return [_measurement(f"{UPSTREAM},{contenders}", "rows", model) for model in (TINY, PUBLISHED)]


def _measurement(contenders: str, parts: str, model: Mapping[str, str]) -> Command:
    chosen = {"SPAI_BENCH_BACKENDS": contenders, "SPAI_BENCH_PARTS": parts, **model}
    return Command(("-m", "gpu", FOLDER), chosen)


SMOKE = Command(("-m", "gpu.offline.smoke", FOLDER))
# Without the project's addopts: these want plugins of pytest that such a machine need not have.
TESTS = Command(("-m", "pytest", "-m", "gpu", "-q", "-rs", "-o", "addopts=", "-p", "no:cacheprovider", "tests/gpu"))
RUN = _measurement("ONNX Runtime fp16 fused,TensorRT fp16,TensorRT for RTX fp16", "end-to-end", PUBLISHED)

STEPS = (
    Step("smoke", "the demo detector's logits of examples/, GPU and CPU", 120, [SMOKE]),
    Step("tests", "pytest -m gpu tests/gpu", 240, [TESTS], said=" passed"),
    Step("torch", "PyTorch and torch.compile, the encoder alone", 420, _rows("torch.compile")),
    Step("onnx", "ONNX Runtime, the encoder alone", 560, _rows("ONNX Runtime")),
    Step("end-to-end", "spai-run from JPEGs", 420, [RUN]),
    Step("tensorrt", "TensorRT, the encoder alone", 580, _rows("TensorRT")),
)

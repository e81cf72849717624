"""detector.json: what the runtime needs to know of an exported detector."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from spai_runtime.calibration import Calibration
from spai_runtime.errors import ManifestError
from spai_runtime.files.digest import sha256_of
from spai_runtime.views import ViewPolicy

SCHEMA = 2  # the newest that is read; 2 came with the calibration
FILE_NAME = "detector.json"

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
BareName = Annotated[str, Meta(pattern=r"^[^./\\][^/\\]*$")]  # a graph lies in the directory itself, nowhere else
Positive = Annotated[int, Meta(ge=1)]


@dataclass(frozen=True)
class Graph:
    """A graph beside detector.json, and the digest that it must have."""

    file: BareName
    sha256: Sha256

    @classmethod
    def of(cls, path: Path) -> "Graph":
        """Of the file as it lies there."""
        return cls(path.name, sha256_of(path))


@dataclass(frozen=True)
class Plan:
    """The graphs as TensorRT engines: native code, for one TensorRT version and one kind of GPU.

    :param tensorrt: version that built them
    :param gpu: name of the GPU that they were tuned on
    :param compute_capability: of that GPU, e.g. `9.0`
    :param batch_size: views that the encoder was tuned for, and takes at most
    :param version_compatible: whether TensorRT's lean runtime of the same release runs them too
    :param options: of the build
    """

    encoder: Graph
    head: Graph
    tensorrt: str
    gpu: str
    compute_capability: str
    batch_size: Positive
    version_compatible: bool = False
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Threshold:
    """Scores strictly above `value` are labelled `ai`; `source` says where the value came from."""

    value: Annotated[float, Meta(ge=0, le=1)]
    source: str


@dataclass(frozen=True)
class Manifest:
    """The content of detector.json.

    :param name: of this detector, for people
    :param detector: the method, e.g. `spai`
    :param features: width D of a view's features
    :param notice: one line that a user must read before trusting a score, or ""
    :param calibration: what makes a score of a logit; None is the sigmoid
    :param plan: the TensorRT engines beside the graphs, if there are any; a runtime that knows none runs the graphs
    :param provenance: checkpoint and its sha256, tool versions, what the verification found
    """

    name: str
    detector: str
    views: ViewPolicy
    features: Positive
    encoder: Graph
    head: Graph
    precision: Literal["fp32", "fp16", "bf16", "int8", "fp8"]
    threshold: Threshold
    notice: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    plan: Plan | None = None

    @property
    def schema(self) -> int:
        """The oldest that holds all of it: a runtime that knows no calibration refuses a detector that has one."""
        return 2 if self.calibration else 1

    @classmethod
    def load(cls, directory: Path) -> "Manifest":
        """:raises ManifestError: no detector.json, not one, or one of a newer schema"""
        path = directory / FILE_NAME
        try:
            content = path.read_bytes()
            schema = msgspec.json.decode(content, type=_Schema).schema
            if schema > SCHEMA:
                raise ManifestError(
                    f"{path} has schema {schema}, and this spai-toolkit reads up to {SCHEMA}: upgrade spai-toolkit"
                )
            return msgspec.json.decode(content, type=cls)
        except OSError as error:
            raise ManifestError(f"cannot read {path}: {error.strerror}") from error
        except msgspec.MsgspecError as error:
            raise ManifestError(f"{path} is not a detector.json: {error}") from error
        except UnicodeDecodeError as error:
            raise ManifestError(f"{path} is not a detector.json: it is not UTF-8") from error

    def dump(self) -> bytes:
        """As it stands in detector.json: indented UTF-8 JSON, the schema first."""
        fields = {"schema": self.schema, **msgspec.to_builtins(self)}
        return msgspec.json.format(msgspec.json.encode(fields), indent=2) + b"\n"


@dataclass(frozen=True)
class _Schema:
    schema: Positive

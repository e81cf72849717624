"""The file detector.json: what the runtime needs to know about an exported detector."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from spai_runtime.calibration import Calibration
from spai_runtime.errors import ImageError, ManifestError, UserError
from spai_runtime.files.digest import sha256_of
from spai_runtime.migration import migrate
from spai_runtime.text import excerpt
from spai_runtime.views import Layout, ViewPolicy

SCHEMA = 4  # the newest that is read; CHANGELOG.md says what each brought
WITHOUT_WINDOWS = 3  # what is written of a detector that needs no more, so that earlier releases read it
FILE_NAME = "detector.json"

LARGEST_FILE = 8 << 20  # bytes of a detector.json
LARGEST_FEATURES = 1 << 16  # D; the widest that is published has 2,048, and all tokens of RINE side by side 24,576
LARGEST_ARTIFACTS = 64
FEATURE_BYTES = 1 << 30  # that the features of one image may take

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Schema = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(max_length=255)]

# A graph lies in the directory itself, nowhere else, under a name that every system can bear.
BareName = Annotated[str, Meta(pattern=r"^(?!\.)[^/\\:\x00-\x1f\x7f]+\Z", max_length=255)]
Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
# What a detector says of an image that it does not call real: a word of its own, in the rows' column `label`.
Positive = Annotated[str, Meta(pattern=r"^(?!(real|error)\Z)[a-z][a-z0-9_-]{0,31}\Z")]

# Kinds of artifacts: two ONNX graphs, or two plans.
ONNX, TENSORRT, TENSORRT_RTX = "onnx", "tensorrt", "tensorrt-rtx"
PLANS = TENSORRT, TENSORRT_RTX  # which are native code
DEVICE = "device"  # the key of `target` that says what a graph was made for, `cpu` or `cuda`, and runs on alone
GIVEN = "given by the user"  # where a threshold came from that is not detector.json's


@dataclass(frozen=True)
class Graph:
    """A file beside detector.json, and the digest that it must have."""

    file: BareName
    sha256: Sha256

    @classmethod
    def of(cls, path: Path) -> "Graph":
        """The sha256 and name of a file as it lies on the disk."""
        return cls(path.name, sha256_of(path))


@dataclass(frozen=True)
class Spread:
    """The largest of many differences, and their 99th percentile, which is interpolated."""

    largest: float
    p99: float


@dataclass(frozen=True)
class Accuracy:
    """How far an artifact's scores are from those of its checkpoint in fp32, as spai-export found it.

    :param against: name of what computed the reference scores
    :param engine: name of what computed the scores of the artifact
    :param images, views: how many were compared
    :param source: where the images come from
    :param score_difference: of |Δscore|, the largest and the 99th percentile
    :param logit_difference: the largest |Δlogit|
    :param labels_changed: the number of images that fell on the other side of the threshold
    :param limit: the largest |Δscore| that passes
    :param passed: whether every |Δscore| is within the limit
    """

    against: str
    engine: str
    images: int
    views: int
    source: str
    score_difference: Spread
    logit_difference: float
    labels_changed: int
    limit: float
    passed: bool


@dataclass(frozen=True)
class Artifact:
    """Encoder and head of the detector in one form, for the engines that run that form.

    :param kind: the kind of the files: ONNX, TENSORRT, TENSORRT_RTX, or what another back end calls its own
    :param precision: the precision in which the encoder's matrix products are computed
    :param target: what the files were built for, in the words of the engine that checks it; {} is any machine
    :param options: for the record: for graphs `opset`, `verified` (differences from torch) and `quantised`; for plans
        the options of the build and the sha256 of the graphs that it read
    :param accuracy: what the accuracy check found; None for graphs in fp32, which others are compared with
    :param unscored: the reason why the accuracy check found nothing yet, or ""
    """

    kind: str
    precision: Precision
    encoder: Graph
    head: Graph
    target: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    accuracy: Accuracy | None = None
    unscored: Annotated[str, Meta(max_length=255)] = ""

    @property
    def passed(self) -> bool:
        """Whether its scores are those of fp32, as far as the accuracy check asks for this and could find out."""
        return self.accuracy is None or self.accuracy.passed

    @property
    def files(self) -> tuple[str, str]:
        """The names of its files."""
        return self.encoder.file, self.head.file


@dataclass(frozen=True)
class Threshold:
    """Scores strictly above `value` are labelled `ai`; `source` says where the value came from."""

    value: Annotated[float, Meta(ge=0, le=1)]
    source: str

    @classmethod
    def given(cls, value: float) -> "Threshold":
        """The threshold that the user gives. :raises UserError: it is not within [0, 1]"""
        if not 0 <= value <= 1:  # which NaN is not either
            raise UserError(f"a threshold of {value} labels nothing: give one from 0 to 1")
        return cls(value, GIVEN)

    def label(self, score: float, positive: str = "ai") -> str:
        """The label of a score. :param positive: the label of a score above the threshold"""
        return positive if score > self.value else "real"


@dataclass(frozen=True)
class Manifest:
    """The content of detector.json.

    :param name: the name of this detector, for people
    :param detector: the method, e.g. `spai`
    :param features: the width D of a view's features
    :param positive: the label of a high score: `ai`, or another word if the detector finds another kind of image
    :param attention: whether the head says how much it looked at each view
    :param artifacts: the forms of the detector in the directory; none if the detector has no directory
    :param notice: one line that a user must read before trusting a score, or ""
    :param calibration: what turns a logit into a score; None is the sigmoid
    :param provenance: checkpoint and its sha256, `licences` of the authors' code and of published weights, tool
        versions; what is known about one artifact is in its `options`
    """

    name: Name
    detector: Name
    views: ViewPolicy
    features: Annotated[int, Meta(ge=1, le=LARGEST_FEATURES)]
    threshold: Threshold
    positive: Positive = "ai"
    attention: bool = True
    notice: str = ""
    calibration: Calibration | None = None
    artifacts: Annotated[tuple[Artifact, ...], Meta(max_length=LARGEST_ARTIFACTS)] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, directory: Path) -> "Manifest":
        """Read a detector.json. :raises ManifestError: there is none, it is not valid, or its schema is newer"""
        path = directory / FILE_NAME
        try:
            content = msgspec.json.decode(_content(path))
            schema = msgspec.convert(content, type=_Schema).schema
            if schema > SCHEMA:
                raise ManifestError(
                    f"{path} has schema {schema}, and this spai-toolkit reads up to {SCHEMA}: upgrade spai-toolkit"
                )
            return msgspec.convert(migrate(content, schema), type=cls)
        except OSError as error:
            raise ManifestError(f"cannot read {path}: {error.strerror}") from error
        except msgspec.MsgspecError as error:
            raise ManifestError(f"{path} is not a detector.json: {excerpt(str(error))}") from error
        except UnicodeDecodeError as error:
            raise ManifestError(f"{path} is not a detector.json: it is not UTF-8") from error
        except RecursionError as error:
            raise ManifestError(f"{path} is not a detector.json: it is nested too deep") from error

    @property
    def schema(self) -> int:
        """The oldest schema that can say all of it; older runtimes refuse the file, and tell the user to upgrade."""
        return SCHEMA if self.views.window else WITHOUT_WINDOWS

    def layout(self, height: int, width: int) -> Layout:
        """Say where the views of an image of this size lie.

        :raises ImageError: the views, or the features of all of them, would be too large
        """
        layout = self.views.layout(height, width)
        rows = _rows(layout)
        if 4 * rows * self.features > FEATURE_BYTES:
            what = f"{rows} {'patches at once' if layout.window else 'views'} of {self.features} features each"
            raise ImageError(f"{width}×{height} pixels make {what}, more than {FEATURE_BYTES >> 30} GiB; crop it")
        return layout

    def dump(self) -> bytes:
        """The bytes of detector.json: indented UTF-8 JSON that begins with the schema."""
        fields = {"schema": self.schema, **msgspec.to_builtins(self)}
        return msgspec.json.format(msgspec.json.encode(fields), indent=2) + b"\n"

    def artifacts_of(self, file: str) -> Sequence[Artifact]:
        """The artifacts that a file of that name belongs to."""
        return [artifact for artifact in self.artifacts if file in artifact.files]


def _rows(layout: Layout) -> int:
    """The number of rows of features that an image's encoder gives at the same time."""
    if layout.window is None:
        return len(layout)
    height, width = (min(side, layout.window.side) for side in layout.shape)
    return math.prod(layout.window.grid(height, width))


def _content(path: Path) -> bytes:
    """Read a file. :raises OSError, ManifestError: it cannot be read; it is larger than any detector.json"""
    with path.open("rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise ManifestError(f"{path} is not a detector.json: it has more than {LARGEST_FILE >> 20} MiB")
    return content


@dataclass(frozen=True)
class _Schema:
    schema: Schema

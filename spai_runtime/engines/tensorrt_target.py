"""The targets of plans: what TensorRT or TensorRT for RTX built them for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from spai_runtime.engines.cuda.gpu import Gpu
from spai_runtime.errors import EngineError
from spai_runtime.manifest import Artifact


@dataclass(frozen=True)
class Target:
    """What a plan was built for: the `target` of its artifact in detector.json.

    :param tensorrt: the version that built it
    :param gpu: the name of the GPU that it was tuned on
    :param compute_capability: that of this GPU, e.g. `9.0`
    :param batch_size: the number of views that the encoder was tuned for; it takes no more
    :param version_compatible: whether TensorRT's lean runtime of the same release also runs the plan
    :param lean_runtime: whether the plan contains a runtime of its version, which is code
    """

    tensorrt: Annotated[str, Meta(max_length=64)]
    gpu: Annotated[str, Meta(max_length=255)]
    compute_capability: Annotated[str, Meta(max_length=64)]
    batch_size: Annotated[int, Meta(ge=1, le=1 << 20)]
    version_compatible: bool = False
    lean_runtime: bool = False

    @classmethod
    def of(cls, path: Path, artifact: Artifact) -> "Target":
        """Read an artifact's target. :raises EngineError: detector.json does not say it"""
        return _converted(path, artifact, cls)

    def check_version(self, path: Path, installed: str) -> None:
        """Check the version. :raises EngineError: the installed TensorRT is not the version that runs the plan"""
        later = self.version_compatible and _numbers(installed) > _numbers(self.tensorrt)
        if installed != self.tensorrt and not later:
            raise EngineError(
                f"{path} was built by TensorRT {self.tensorrt}, and {installed} is installed: "
                f"pip install tensorrt=={self.tensorrt}, or export again here"
            )

    def check_gpu(self, path: Path, gpu: Gpu) -> None:
        """Check the GPU. :raises EngineError: it is of another kind than the plan's"""
        if self.compute_capability != gpu.capability:
            raise EngineError(
                f"{path} was built for {self.gpu} ({self.compute_capability}), and {gpu.device} is {gpu.name} "
                f"({gpu.capability}): run spai-export --trt on this machine"
            )


@dataclass(frozen=True)
class RtxTarget:
    """What a plan of TensorRT for RTX was built for.

    :param tensorrt_rtx: the version that built it; only this version runs it
    :param compute_capabilities: those of the GPUs that it runs on
    :param batch_size: the number of views that the encoder was tuned for; it takes no more
    """

    tensorrt_rtx: Annotated[str, Meta(max_length=64)]
    compute_capabilities: Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=64)]
    batch_size: Annotated[int, Meta(ge=1, le=1 << 20)]

    @classmethod
    def of(cls, path: Path, artifact: Artifact) -> "RtxTarget":
        """Read an artifact's target. :raises EngineError: detector.json does not say it"""
        return _converted(path, artifact, cls)


T = TypeVar("T")


def _converted(path: Path, artifact: Artifact, kind: type[T]) -> T:
    try:
        return msgspec.convert(artifact.target, kind)
    except msgspec.ValidationError as error:
        raise EngineError(f"nothing says what {path} was built for ({error}): export it again") from error


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isascii() and part.isdigit())

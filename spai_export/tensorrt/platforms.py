"""Which TensorRT builds plans, and for which GPUs: TensorRT for the GPU here, or TensorRT for RTX for many GPUs."""

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import msgspec

from spai_export.choices import TrtFor
from spai_export.onnx import ExportError
from spai_export.tensorrt.builder import BuildOptions, InputShape, PlanBuilder
from spai_export.tensorrt.inspector import Layers
from spai_export.tensorrt.lint import VERSIONS
from spai_export.tensorrt.listing import layers_in
from spai_runtime.engines.cuda.gpu import Gpu
from spai_runtime.engines.installed import absence, is_installed
from spai_runtime.engines.tensorrt_rtx import import_rtx
from spai_runtime.engines.tensorrt_target import RtxTarget, Target
from spai_runtime.errors import EngineError
from spai_runtime.install import install
from spai_runtime.manifest import TENSORRT, TENSORRT_RTX, Precision

OLDEST = (10, 12)  # of TensorRT

# Of TensorRT for RTX 1.7, "Support Matrix", and what its builder says: a plan for which no target was set runs on all
# of these; the kernels of fp8 exist for three. Our graphs are refused for 7.5 ("FP32 GEMM is not supported").
CAPABILITIES = ("8.0", "8.6", "8.9", "12.0", "12.1")
FP8_CAPABILITIES = ("8.9", "12.0", "12.1")


class TensorRTMissingError(ExportError):
    """There is no TensorRT or no GPU to build plans with: one sentence says what to install or where to run."""


class Platform(Protocol):
    """A TensorRT that builds, and what its plans are for.

    :param kind: the kind of the artifacts
    """

    kind: ClassVar[str]

    @property
    def trt(self) -> Any:
        """TensorRT's Python module."""

    @property
    def release(self) -> str:
        """The release of TensorRT whose operators the graphs are checked against."""

    def label(self, precisions: Collection[Precision]) -> str:
        """The TensorRT, and the GPUs that plans of these precisions are for, in words for people."""

    def building(self) -> AbstractContextManager[object]:
        """A context in which plans are built."""

    def configure(self, precision: Precision, config: Any) -> None:
        """Sets what else this TensorRT needs in the IBuilderConfig of an encoder of that precision, or of a head."""

    def layers(self, builder: PlanBuilder, plan: bytes, shape: InputShape) -> tuple[Layers, str]:
        """The plan's layers, and the report that they were read from; "" if there is none."""

    def target(self, precision: Precision, batch_size: int, options: BuildOptions) -> dict[str, Any]:
        """What detector.json says that the plans were built for."""


@dataclass(frozen=True)
class ThisGpu:
    """TensorRT, and the GPU of this machine that plans are tuned on."""

    trt: Any
    gpu: Gpu
    kind: ClassVar[str] = TENSORRT

    @classmethod
    def find(cls, device: str) -> "ThisGpu":
        """:raises TensorRTMissingError: TensorRT or the GPU is not there, or too old"""
        trt = _tensorrt()
        try:
            return cls(trt, Gpu.find(device))
        except EngineError as error:
            raise TensorRTMissingError(
                f"TensorRT builds a plan on the GPU that shall run it, so run this command there: {error}"
            ) from error

    @property
    def release(self) -> str:
        return str(self.trt.__version__)

    def label(self, precisions: Collection[Precision]) -> str:  # noqa: ARG002
        """See `Platform`."""
        return f"TensorRT {self.trt.__version__}: plans for {self.gpu.name} ({self.gpu.capability})"

    def building(self) -> Gpu:
        """See `Platform`."""
        return self.gpu

    def configure(self, precision: Precision, config: Any) -> None:
        """See `Platform`; this TensorRT needs nothing else."""

    def layers(self, builder: PlanBuilder, plan: bytes, shape: InputShape) -> tuple[Layers, str]:
        """See `Platform`; the engine inspector tells the layers."""
        report = builder.inspect(plan, shape)
        return Layers.of(report), report

    def target(self, precision: Precision, batch_size: int, options: BuildOptions) -> dict[str, Any]:  # noqa: ARG002
        """See `Platform`."""
        gpu, compatible = self.gpu, options.version_compatible
        return _fields(Target(self.trt.__version__, gpu.name, gpu.capability, batch_size, compatible))


@dataclass(frozen=True)
class Rtx:
    """TensorRT for RTX, which builds without a GPU; the rest is compiled on the GPU that runs a plan."""

    trt: Any
    kind: ClassVar[str] = TENSORRT_RTX

    @classmethod
    def find(cls) -> "Rtx":
        """:raises TensorRTMissingError: it is not there"""
        try:
            return cls(import_rtx())
        except EngineError as error:
            raise TensorRTMissingError(str(error)) from error

    @property
    def release(self) -> str:
        """See `Platform`; it is the release whose ONNX parser TensorRT for RTX has."""
        return VERSIONS[-1]

    def label(self, precisions: Collection[Precision]) -> str:
        """See `Platform`."""
        name = f"TensorRT for RTX {self.trt.__version__}"
        every = f"GPUs of compute capability {_listed(CAPABILITIES)} (GeForce RTX 30, 40 and 50 among them)"
        fp8 = f"; those of fp8 for {_listed(FP8_CAPABILITIES)} alone" if "fp8" in precisions else ""
        return f"{name}: plans for {every}{fp8}"

    def building(self) -> AbstractContextManager[object]:
        """See `Platform`; any context will do."""
        return nullcontext()

    def configure(self, precision: Precision, config: Any) -> None:
        """See `Platform`."""
        # Else a run may allocate by itself, which no CUDA graph can record (release notes of TensorRT for RTX 1.2).
        config.set_flag(self.trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
        if precision == "fp8":
            config.num_compute_capabilities = len(FP8_CAPABILITIES)
            for index, capability in enumerate(FP8_CAPABILITIES):
                target = getattr(self.trt.ComputeCapability, f"SM{capability.replace('.', '')}")
                taken = config.set_compute_capability(target, index)
                assert taken, f"TensorRT for RTX builds for no {capability}"

    def layers(self, builder: PlanBuilder, plan: bytes, shape: InputShape) -> tuple[Layers, str]:  # noqa: ARG002
        """See `Platform`; the plan itself tells the layers, since the engine inspector needs a driver to load it."""
        return layers_in(plan), ""

    def target(self, precision: Precision, batch_size: int, options: BuildOptions) -> dict[str, Any]:  # noqa: ARG002
        """See `Platform`."""
        capabilities = FP8_CAPABILITIES if precision == "fp8" else CAPABILITIES
        return _fields(RtxTarget(self.trt.__version__, capabilities, batch_size))


def choose(options: BuildOptions) -> Platform:
    """The platform that was asked for, by name or by an option of its own; else TensorRT on this machine's GPU, or
    TensorRT for RTX.

    :raises TensorRTMissingError: it is not there, or neither is
    """
    if options.trt_for is TrtFor.GPU or options.asks_tensorrt:
        return ThisGpu.find(options.device)
    if options.trt_for is TrtFor.RTX:
        return Rtx.find()
    try:
        return ThisGpu.find(options.device)
    except TensorRTMissingError as error:
        if not is_installed("tensorrt_rtx"):
            raise TensorRTMissingError(
                f"{error}; or {install('rtx')}, which builds plans for GeForce RTX on any machine"
            ) from error
        return Rtx.find()


def _tensorrt() -> Any:
    try:
        import tensorrt as trt  # noqa: PLC0415
    except (ImportError, OSError) as error:  # OSError: a library that it loads by itself
        lean = "tensorrt_lean runs plans but builds none" if is_installed("tensorrt_lean") else None
        raise TensorRTMissingError(
            f"{lean or absence(error, 'tensorrt', 'TensorRT')}: {install('trt')} on a machine with an "
            "NVIDIA GPU, and run this command there"
        ) from error
    if tuple(map(int, trt.__version__.split(".")[:2])) < OLDEST:
        raise TensorRTMissingError(f"TensorRT {trt.__version__} is too old: pip install 'tensorrt>=10.12'")
    return trt


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}"


def _fields(target: Target | RtxTarget) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(target))  # as it will be read again
    return fields

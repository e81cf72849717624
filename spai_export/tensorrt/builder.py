"""TensorRT's builder: an ONNX graph and the shapes of its input → a plan, with what TensorRT said meanwhile.

The code is the same for TensorRT 10.12 to 11.x and for TensorRT for RTX: networks are strongly typed, so precision is
what the graph says, and nothing that 11 dropped is used. TF32 is off: its 10 bits of mantissa are too few for the
spectral filter.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spai_export.choices import TrtFor
from spai_export.onnx import ExportError
from spai_runtime.engines.base import GPU_BATCH_SIZE
from spai_runtime.engines.devices import gpus
from spai_runtime.engines.tensorrt_log import log_of
from spai_runtime.files.atomic import atomic_write
from spai_runtime.text import sentence

# Pillow decodes at most 178,956,970 pixels, and none are padded to more: 3,566 tiles of 224 × 224.
HEAD_VIEWS = 4096

Shape = tuple[int, ...]


@dataclass(frozen=True)
class BuildOptions:
    """How plans are built.

    :param trt_for: the GPUs that they are for; None takes the GPU that is here if TensorRT is too, else those of RTX
    :param batch_size: the number of views that the encoder is tuned for, and takes at most
    :param workspace_gib: GPU memory that a layer's kernel may use besides its tensors; None is all there is
    :param version_compatible: whether the lean runtime of the same version can load plans too, at some cost in speed;
        only TensorRT has this option
    :param timing_cache: the file of what earlier builds measured, which is made if it is not there; only TensorRT has
        it
    :param optimization_level: 0 (a quick build) to 5 (a fast plan)
    :param head_views: how many views of an image the head takes at most
    :param device: the GPU that TensorRT builds on, and that plans of either kind are scored on
    """

    batch_size: int = GPU_BATCH_SIZE
    workspace_gib: float | None = None
    version_compatible: bool = False
    timing_cache: Path | None = None
    optimization_level: int = 3
    head_views: int = HEAD_VIEWS
    device: str = "cuda:0"
    trt_for: TrtFor | None = None

    def __post_init__(self) -> None:
        """:raises ExportError: no build can have these options"""
        if self.workspace_gib is not None and self.workspace_gib <= 0:
            raise ExportError("--workspace 0 leaves TensorRT no memory to build in: leave it out for all there is")
        if self.trt_for is TrtFor.RTX and self.asks_tensorrt:
            raise ExportError(f"TensorRT for RTX has no use for {self.asks_tensorrt}: leave it out")
        if len(gpus(self.device)) != 1:
            raise ExportError(f"a plan is built on one GPU, and {self.device} is not one: give --device cuda:0")

    @property
    def asks_tensorrt(self) -> str:
        """An option that was given and that only TensorRT has; else ""."""
        if self.timing_cache is not None:
            return "--timing-cache"
        return "--version-compatible" if self.version_compatible else ""


@dataclass(frozen=True)
class InputShape:
    """The shapes that a graph's input may have, and the one that it is tuned for, as TensorRT's profiles call them."""

    name: str
    min: Shape
    opt: Shape
    max: Shape


class PlanBuilder:
    """TensorRT's builder, for the graphs of one detector.

    :param trt: TensorRT's Python module
    :raises ExportError: TensorRT does not start, e.g. because the driver is too old for it
    """

    def __init__(self, trt: Any, options: BuildOptions) -> None:
        self._trt, self._options, self._log = trt, options, log_of(trt)
        self._log.clear()
        self._timings = TimingCache(options.timing_cache)
        try:
            self._builder = trt.Builder(self._log)
        except TypeError as error:  # what pybind11 makes of a null pointer
            raise ExportError(f"TensorRT {trt.__version__} does not start: {self._log.last}") from error

    def build(self, onnx: Path, shape: InputShape, configure: Callable[[Any], None] | None = None) -> bytes:
        """:param configure: what else to set in TensorRT's IBuilderConfig
        :returns: the plan of a graph
        """
        network = self._parse(onnx)
        config = self._config(shape)
        if configure:
            configure(config)
        memory = self._builder.build_serialized_network(network, config)
        if memory is None:
            raise ExportError(f"TensorRT could not build {onnx.name}: {self._log.last}")
        self._timings.save()
        return bytes(memory)

    def inspect(self, plan: bytes, shape: InputShape) -> str:
        """The engine inspector's report in JSON; it is empty if this TensorRT cannot load the plan.

        It has types of tensors only where the shape of the input is known, so a context without memory sets the shape.
        """
        engine = self._trt.Runtime(self._log).deserialize_cuda_engine(plan)
        if engine is None:
            return ""
        context = engine.create_execution_context(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        inspector = engine.create_engine_inspector()
        if context is not None and context.set_input_shape(shape.name, shape.opt):
            inspector.execution_context = context
        return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def notes(self) -> list[str]:
        """What the user should know of the builds, each sentence once."""
        return [*self._timings.notes, *(f"TensorRT: {message}" for message in dict.fromkeys(self._log.messages))]

    def _parse(self, onnx: Path) -> Any:
        network = self._builder.create_network(1 << int(self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = self._trt.OnnxParser(network, self._log)
        if not parser.parse_from_file(str(onnx)):
            errors = [_said(parser.get_error(index)) for index in range(parser.num_errors)]
            raise ExportError(f"TensorRT refuses {onnx.name}: {'; '.join(errors) or self._log.last}")
        return network

    def _config(self, shape: InputShape) -> Any:
        trt, options = self._trt, self._options
        config = self._builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)
        if options.version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
            config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)  # a plan with it holds code that loading would run
        if options.workspace_gib is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(options.workspace_gib * 2**30))
        config.builder_optimization_level = options.optimization_level
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # what `inspect` reads
        profile = self._builder.create_optimization_profile()
        profile.set_shape(shape.name, shape.min, shape.opt, shape.max)
        if config.add_optimization_profile(profile) < 0:  # else the build would say that there is none
            wrong = f"{shape.name} from {shape.min} over {shape.opt} to {shape.max}"
            raise ExportError(
                f"TensorRT takes no {wrong}: the least must not be above the best, nor that above the most"
            )
        self._timings.attach(config)
        return config


def _said(error: Any) -> str:
    """What the parser says, with the node, which its own text often does not name."""
    where = f"{error.node_operator()} ({error.node_name()}): " if error.node_operator() else ""
    return f"{where}{sentence(error.desc())}"


@dataclass
class TimingCache:
    """A file of what builds measured; it starts anew if it is damaged or of another GPU or TensorRT version."""

    path: Path | None
    notes: list[str] = field(default_factory=list)
    _cache: Any = None  # must outlive every builder that uses it

    def attach(self, config: Any) -> None:
        """Lets the build of this configuration read the cache and add to it."""
        if self.path is None:
            return
        if self._cache is None:
            self._cache = config.create_timing_cache(self._content())
        if self._cache is None or not config.set_timing_cache(self._cache, False):
            self.notes.append(f"{self.path} fits neither this GPU nor this TensorRT, or is damaged: started anew")
            self._cache = config.create_timing_cache(b"")
            config.set_timing_cache(self._cache, False)

    def save(self) -> None:
        """Writes the cache; if that fails, it costs time, but never the plan."""
        if self.path is None:
            return
        try:
            with atomic_write(self.path) as part:
                part.write_bytes(bytes(self._cache.serialize()))
        except OSError as error:
            self.notes.append(f"cannot write the timing cache {self.path}: {error.strerror}")

    def _content(self) -> bytes:
        assert self.path is not None
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            self.notes.append(f"cannot read the timing cache {self.path}: {error.strerror}")
            return b""

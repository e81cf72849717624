"""The half of the fake TensorRT that builds plans, which `tensorrt_lean` lacks."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import onnx

from tests.gpu.fakes.fake_tensorrt_parser import INetworkDefinition, OnnxParser
from tests.gpu.fakes.fake_tensorrt_types import (
    FakeTensorRT,
    Header,
    IHostMemory,
    ILogger,
    IOTensor,
    ProfilingVerbosity,
    Severity,
    members,
    of_fake,
    write_plan,
)

FLAGS = """DEBUG GPU_FALLBACK REFIT DISABLE_TIMING_CACHE EDITABLE_TIMING_CACHE TF32 SPARSE_WEIGHTS SAFETY_SCOPE
DIRECT_IO VERSION_COMPATIBLE EXCLUDE_LEAN_RUNTIME ERROR_ON_TIMING_CACHE_MISS DISABLE_COMPILATION_CACHE STRIP_PLAN
REFIT_IDENTICAL WEIGHT_STREAMING REFIT_INDIVIDUAL STRICT_NANS MONITOR_MEMORY DISTRIBUTIVE_INDEPENDENCE"""
FLAGS_OF_10 = "FP16 BF16 INT8 FP8 INT4 FP4 OBEY_PRECISION_CONSTRAINTS PREFER_PRECISION_CONSTRAINTS"
TIMING = b"timing cache "

MemoryPoolType = members(
    "MemoryPoolType", "WORKSPACE DLA_MANAGED_SRAM DLA_LOCAL_DRAM DLA_GLOBAL_DRAM TACTIC_DRAM TACTIC_SHARED_MEMORY"
)
BuilderFlag10 = members("BuilderFlag", f"{FLAGS_OF_10} {FLAGS}")
BuilderFlag11 = members("BuilderFlag", FLAGS)
CreationFlag10 = members("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH STRONGLY_TYPED")
CreationFlag11 = members("NetworkDefinitionCreationFlag", "STRONGLY_TYPED")


def builder_names(fake: FakeTensorRT) -> dict[str, Any]:
    """What only `tensorrt` has."""
    old = fake.major < 11
    classes = (INetworkDefinition, IBuilderConfig, IOptimizationProfile, ITimingCache, OnnxParser)
    return {
        "Builder": of_fake(fake, Builder),
        "BuilderFlag": BuilderFlag10 if old else BuilderFlag11,
        "NetworkDefinitionCreationFlag": CreationFlag10 if old else CreationFlag11,
        "MemoryPoolType": MemoryPoolType,
        **{item.__name__: item for item in classes},
    }


class IOptimizationProfile:
    """trt.IOptimizationProfile"""

    def __init__(self) -> None:
        self.shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]) -> None:  # noqa: A002
        for name, low, high in (("opt", min, opt), ("max", opt, max)):
            if len(low) != len(high) or any(one > other for one, other in zip(low, high, strict=True)):
                raise RuntimeError(f"Shape provided for {name} is inconsistent with other shapes.")
        self.shapes[input] = [list(shape) for shape in (min, opt, max)]

    def __bool__(self) -> bool:
        return bool(self.shapes)


class ITimingCache:
    """trt.ITimingCache: of one release and one GPU."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> IHostMemory:
        return IHostMemory(self.content)


class IBuilderConfig:
    """trt.IBuilderConfig"""

    __slots__ = (
        "_flags",
        "_limits",
        "builder_optimization_level",
        "cache",
        "fake",
        "kinds",
        "profiles",
        "profiling_verbosity",
    )

    def __init__(self, fake: FakeTensorRT) -> None:
        self.fake = fake
        self.kinds = BuilderFlag10 if fake.major < 11 else BuilderFlag11
        self._flags = {self.kinds.TF32}
        self._limits: dict[Any, int] = {}
        self.profiles: list[IOptimizationProfile] = []
        self.cache: ITimingCache | None = None
        self.builder_optimization_level = 3
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY

    def set_flag(self, flag: Any) -> None:
        self._flags.add(self.kinds(flag))

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(self.kinds(flag))

    @property
    def flag_names(self) -> list[str]:
        return sorted(flag.name for flag in self._flags)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._limits[MemoryPoolType(pool)] = int(pool_size)

    def get_memory_pool_limit(self, pool: Any) -> int:
        gpu = self.fake.machine.gpus[self.fake.machine.current]
        return self._limits.get(MemoryPoolType(pool), gpu.memory)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        if not profile:
            return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1

    @property
    def _cache_header(self) -> bytes:
        gpu = self.fake.machine.gpus[self.fake.machine.current]
        return TIMING + f"{self.fake.version} {gpu.name}".encode()

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        content = bytes(memoryview(serialized_timing_cache))
        return ITimingCache(content or self._cache_header) if not content or content.startswith(TIMING) else None

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if not ignore_mismatch and not cache.content.startswith(self._cache_header):
            return False
        self.cache = cache
        return True


class Builder:
    """trt.Builder"""

    __slots__ = ("logger",)
    fake: ClassVar[FakeTensorRT]

    def __init__(self, logger: ILogger) -> None:
        self.fake.start(logger)
        self.logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        typed = 1 << (CreationFlag10 if self.fake.major < 11 else CreationFlag11).STRONGLY_TYPED
        return INetworkDefinition(self.fake, strongly_typed=bool(flags & typed) or self.fake.major >= 11)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig(self.fake)

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        refused = self.fake.build_fails or missing(network, config)
        if refused:
            self.logger.log(Severity.ERROR, f"IBuilder::buildSerializedNetwork: {refused}")
            return None
        header = self._header(network, config)
        self.fake.builds.append(header)
        if config.cache is not None:
            config.cache.content += b" and a tactic"
        return write_plan(header, network.graph)

    def _header(self, network: INetworkDefinition, config: IBuilderConfig) -> Header:
        layers = plausible_layers(network) if self.fake.layers is None else self.fake.layers
        return Header(
            version=self.fake.version,
            capability=self.fake.machine.gpus[self.fake.machine.use()].capability,
            strongly_typed=network.strongly_typed,
            flags=config.flag_names,
            profiles=[profile.shapes for profile in config.profiles],
            verbosity=config.profiling_verbosity.name,
            optimization_level=config.builder_optimization_level,
            workspace=config.get_memory_pool_limit(MemoryPoolType.WORKSPACE),
            layers=layers,
        )


def missing(network: INetworkDefinition, config: IBuilderConfig) -> str | None:
    """What keeps a network from being built."""
    if not network.graph:
        return "Error Code 4: Internal Error (Network must have at least one output)"
    dynamic = [tensor for tensor in network._inputs if -1 in tensor.shape]
    if dynamic and not config.profiles:
        return (
            "Error Code 4: API Usage Error (Network has dynamic or shape inputs, but no optimization profile has been "
            "defined.)"
        )
    for tensor in dynamic:
        for profile in config.profiles:
            if not fits(tensor, profile):
                return f"Error Code 4: API Usage Error (the profile does not fit {tensor.name} {tensor.shape})"
    return None


def fits(tensor: IOTensor, profile: IOptimizationProfile) -> bool:
    shapes = profile.shapes.get(tensor.name)
    return shapes is not None and all(
        len(shape) == len(tensor.shape)
        and all(axis in {-1, size} for axis, size in zip(tensor.shape, shape, strict=True))
        for shape in shapes
    )


def plausible_layers(network: INetworkDefinition) -> list[dict[str, Any]]:
    """A layer a node, but the products on both sides of a Softmax and what is between them in one."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(network.graph)).graph
    values = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input)}
    field = "Format/Datatype" if network.fake.major < 11 else "Datatype"
    return [
        {
            "Name": f"{'_gemm_mha_v2' if len(nodes) > 1 else nodes[0].op_type}_myl0_{index}",
            "LayerType": "kgen",
            "Inputs": [
                {"Name": name, field: onnx.helper.tensor_dtype_to_np_dtype(values[name]).name.capitalize()}
                for name in nodes[0].input
                if values.get(name)
            ],
            "Outputs": [],
            "TacticName": "",
            "Metadata": "\x1e".join(f"[ONNX Layer: {node.name}]" for node in nodes),
        }
        for index, nodes in enumerate(fused(list(graph.node)))
    ]


def fused(nodes: list[onnx.NodeProto]) -> Iterator[list[onnx.NodeProto]]:
    """The nodes in groups: from the last product before a Softmax to the first after it, and each of the others."""
    products = [index for index, node in enumerate(nodes) if node.op_type == "MatMul"]
    softmaxes = [index for index, node in enumerate(nodes) if node.op_type == "Softmax"]
    ends = {
        max(index for index in products if index < at): min(index for index in products if index > at)
        for at in softmaxes
        if products and products[0] < at < products[-1]
    }
    index = 0
    while index < len(nodes):
        end = ends.get(index, index)
        yield nodes[index : end + 1]
        index = end + 1

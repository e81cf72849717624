"""The fake TensorRT's ONNX parser, which refuses what the real one is known to refuse."""

from collections.abc import Iterator
from pathlib import Path

import onnx

from tests.gpu.fakes.fake_tensorrt_types import DataType, FakeTensorRT, ILogger, IOTensor, Severity

UNSUPPORTED = {"DFT", "STFT", "ComplexAbs"}


class INetworkDefinition:
    """trt.INetworkDefinition: what the parser read."""

    def __init__(self, fake: FakeTensorRT, *, strongly_typed: bool) -> None:
        self.fake, self.strongly_typed = fake, strongly_typed
        self.graph = b""
        self._inputs: list[IOTensor] = []

    def take(self, model: onnx.ModelProto) -> None:
        self.graph = model.SerializeToString()
        self._inputs = [IOTensor.read(value) for value in model.graph.input]


class ParserError:
    """trt.ParserError"""

    def __init__(self, description: str, node: str = "", operator: str = "", index: int = 0) -> None:
        self._description, self._node, self._operator, self._index = description, node, operator, index

    def desc(self) -> str:
        return self._description

    def node(self) -> int:
        return self._index

    def node_name(self) -> str:
        return self._node

    def node_operator(self) -> str:
        return self._operator

    def __str__(self) -> str:
        where = f"In node {self._index} with name: {self._node} and operator: {self._operator}"
        return f"{where} (parseNode): UNSUPPORTED_NODE: {self._description}"


class OnnxParser:
    """trt.OnnxParser"""

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        network.fake.start(logger)
        self.network, self.logger = network, logger
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse_from_file(self, model: str) -> bool:
        if not isinstance(model, str):
            raise TypeError("parse_from_file(): incompatible function arguments")
        if not Path(model).is_file():
            return self._fail(ParserError(f"Failed to open file: {model}"))
        try:
            loaded = onnx.load(model)
        except Exception as error:  # of whatever kind the protobuf library chooses
            return self._fail(ParserError(f"Failed to parse ONNX model from file: {model} ({error})"))
        for error in unsupported(loaded.graph):
            return self._fail(error)
        self.network.take(loaded)
        return True

    def _fail(self, error: ParserError) -> bool:
        self._errors.append(error)
        self.logger.log(Severity.ERROR, error.desc())
        return False


def unsupported(graph: onnx.GraphProto) -> Iterator[ParserError]:
    """Nodes that no TensorRT takes."""
    bytes_ = {value.name for value in graph.input if IOTensor.read(value).dtype == DataType.UINT8}
    for index, node in enumerate(graph.node):
        place = node.name, node.op_type, index
        if node.op_type in UNSUPPORTED:
            yield ParserError(f"No importer registered for op: {node.op_type}", *place)
        if bytes_.intersection(node.input) and node.op_type != "Cast":
            yield ParserError(f"{node.op_type} does not take UINT8", *place)

"""What NVIDIA's own parser and builder say of small graphs: those of TensorRT for RTX, which builds without a GPU.

The graphs are asked in processes of their own, since some graphs end the process that builds them.
"""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import onnx

PROCESSES = 2  # at once
PATIENCE = 300  # seconds for all that a process is asked
ANSWERS = "answers.jsonl"  # a line a graph
SIZES = 1, 2, 4  # the least, the usual and the most, of an axis that a graph leaves open
FP8 = "SM89", "SM120", "SM121"


@dataclass(frozen=True)
class Verdict:
    """:param built: whether the graph became a plan
    :param said: why not, in NVIDIA's words, with the operator in front where the parser names it
    :param elements: types of the network's inputs, as TensorRT has them
    """

    built: bool
    said: str = ""
    elements: Sequence[str] = ()


def verdicts(models: Sequence[onnx.ModelProto]) -> list[Verdict]:
    """Of each graph. All axes that graphs leave open have the sizes SIZES."""
    parts = [models[start::PROCESSES] for start in range(PROCESSES)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        found = list(pool.map(_in_turn, parts))
    return [found[index % PROCESSES][index // PROCESSES] for index in range(len(models))]


def _in_turn(models: Sequence[onnx.ModelProto]) -> list[Verdict]:
    """By one process, and by another one where that ends too early."""
    with tempfile.TemporaryDirectory() as name:
        folder, found = Path(name), list[Verdict]()
        for index, model in enumerate(models):
            onnx.save(model, folder / f"{index:05}.onnx")
        while len(found) < len(models):
            found += _answers(folder, len(found))
    return found


def _answers(folder: Path, start: int) -> list[Verdict]:
    """Of the graphs from the one with that number on, up to one that ends the process."""
    command = [sys.executable, __file__, str(folder), str(start)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ran.returncode <= 0, ran.stderr
    found = [Verdict(**json.loads(line)) for line in (folder / ANSWERS).read_text().splitlines()]
    return [*found, Verdict(False, f"ended by {signal.Signals(-ran.returncode).name}")] if ran.returncode else found


class _Child:
    """What the other process does; it knows no package but tensorrt_rtx."""

    def __init__(self) -> None:
        import tensorrt_rtx  # noqa: PLC0415

        class Log(tensorrt_rtx.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.errors: list[str] = []

            def log(self, severity: Any, message: str) -> None:
                if severity in (self.ERROR, self.INTERNAL_ERROR):
                    self.errors.append(message)

        self.trt, self.log = tensorrt_rtx, Log()
        self.builder = tensorrt_rtx.Builder(self.log)

    def verdict(self, graph: Path) -> Verdict:
        self.log.errors.clear()
        network = self.builder.create_network(0)
        parser = self.trt.OnnxParser(network, self.log)
        if not parser.parse_from_file(str(graph)):
            errors = (parser.get_error(index) for index in range(parser.num_errors))
            return Verdict(False, "; ".join(f"{error.node_operator()}: {error.desc()}" for error in errors))
        plan = self.builder.build_serialized_network(network, self._config(network))
        elements = [network.get_input(index).dtype.name for index in range(network.num_inputs)]
        return Verdict(plan is not None, "; ".join(self.log.errors), elements)

    def _config(self, network: Any) -> Any:
        config = self.builder.create_builder_config()
        inputs = [network.get_input(index) for index in range(network.num_inputs)]
        if -1 in chain.from_iterable(one.shape for one in inputs):
            config.add_optimization_profile(self._profile(inputs))
        if self._fp8(network):  # which the GPUs that a plan is for by default do not all have
            config.num_compute_capabilities = len(FP8)
            for index, name in enumerate(FP8):
                config.set_compute_capability(getattr(self.trt.ComputeCapability, name), index)
        return config

    def _profile(self, inputs: Sequence[Any]) -> Any:
        profile = self.builder.create_optimization_profile()
        for one in inputs:
            if -1 in one.shape:
                shapes = ([size if axis < 0 else axis for axis in one.shape] for size in SIZES)
                profile.set_shape(one.name, *shapes)
        return profile

    def _fp8(self, network: Any) -> bool:
        layers = (network.get_layer(index) for index in range(network.num_layers))
        kind = self.trt.LayerType.QUANTIZE
        return any(layer.type == kind and layer.get_output(0).dtype == self.trt.fp8 for layer in layers)


def _answer(folder: Path, start: int) -> None:
    child = _Child()
    with (folder / ANSWERS).open("w") as answers:
        for graph in sorted(folder.glob("*.onnx"))[start:]:
            answers.write(json.dumps(vars(child.verdict(graph))) + "\n")
            answers.flush()


if __name__ == "__main__":
    _answer(Path(sys.argv[1]), int(sys.argv[2]))

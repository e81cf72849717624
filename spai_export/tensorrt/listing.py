"""Reads what TensorRT for RTX wrote of a plan's layers into the plan itself; its inspector would need a driver.

The format is documented nowhere. A plan holds text. A line of it declares a tensor, `name="…" … type=half }`, or is a
step: `function={ name=_gemm_mha_v2 … input_args={ "…" } … layers="[ONNX Layer: a]…[ONNX Layer: b]" }`. A step that is
no function has other names for the lists of its tensors. A plan that cannot be read has no layers here, and then
nothing is claimed.
"""

import re
from collections.abc import Iterator, Mapping

from spai_export.tensorrt.inspector import Layer, Layers, nodes_named

_TYPES = {b"float": "fp32", b"half": "fp16", b"bf16": "bf16", b"int8": "int8", b"fp8_e4m3": "fp8"}
_TENSOR = re.compile(rb'name="([^"\n]+)"[^\n}]*(?:\{[^\n}]*\}[^\n}]*)*? type=(\w+)')
_STEP = re.compile(rb'^ *\w+=\{ name="?([^" \n]+)"? [^\n]*layers="([^"\n]+)"', re.MULTILINE)
_LISTS = re.compile(rb"(?:args|input|output)=\{([^}\n]*)\}")
_NAMES = re.compile(rb'"([^"]+)"')
_ATTENTION = b"_mha_"


def layers_in(plan: bytes) -> Layers:
    """:param plan: a plan of TensorRT for RTX, built with detailed profiling verbosity"""
    types = {name: _TYPES[kind] for name, kind in _TENSOR.findall(plan) if kind in _TYPES}
    return Layers(list(_steps(plan, types)))


def _steps(plan: bytes, types: Mapping[bytes, str]) -> Iterator[Layer]:
    for step in _STEP.finditer(plan):
        tensors = [name for names in _LISTS.findall(step[0]) for name in _NAMES.findall(names)]
        found = frozenset(types[name] for name in tensors if name in types)
        yield Layer(nodes_named(step[2].decode(errors="replace")), found, _ATTENTION in step[1])

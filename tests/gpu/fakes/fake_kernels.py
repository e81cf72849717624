"""cupy.ElementwiseKernel without a GPU: its text is compiled by the C++ compiler and runs on the fake memory."""

import atexit
import ctypes
import functools
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.gpu.fakes.fake_arrays import ndarray
from tests.gpu.fakes.fake_machine import CUDADriverError, CUDARuntimeError, Machine
from tests.gpu.fakes.fake_streams import Stream, current_stream

C_TYPES = {
    "bool": "bool",
    "uint8": "unsigned char",
    "int8": "signed char",
    "int32": "int",
    "uint32": "unsigned int",
    "int64": "long long",
    "uint64": "unsigned long long",
    "float32": "float",
    "float64": "double",
}
ADDRESS = np.dtype(np.int64)
FIRST_ADDRESS = 1 << 32  # smaller numbers are sizes and coordinates
SOURCE = """#include <cstddef>
#define __device__
#define __host__
#define __forceinline__ inline
{preamble}
extern "C" void kernel_(ptrdiff_t count_, {parameters}) {{
    for (ptrdiff_t i = 0; i < count_; ++i) {{ {names}
{operation};
    }}
}}
"""


class Parameter(NamedTuple):
    """Of a kernel: `raw int64 table`."""

    raw: bool
    dtype: np.dtype[Any]
    name: str

    @classmethod
    def parse(cls, text: str) -> "list[Parameter]":
        words = [part.split() for part in text.split(",") if part.strip()]
        return [cls(len(part) == 3 and part[0] == "raw", np.dtype(part[-2]), part[-1]) for part in words]


class ElementwiseKernel:
    """cupy.ElementwiseKernel on contiguous arrays that are all `raw` or all as long as the output."""

    machine: ClassVar[Machine]

    def __init__(
        self, in_params: str, out_params: str, operation: str, name: str = "kernel", *, preamble: str = ""
    ) -> None:
        self.inputs, self.outputs = Parameter.parse(in_params), Parameter.parse(out_params)
        self.operation, self.name, self.preamble = operation, name, preamble
        self._loaded: set[int] = set()

    def __call__(self, *args: Any, size: int | None = None) -> Any:
        """Loads the kernel when it is called first on a GPU; the driver says what goes wrong."""
        try:
            if self.machine.current not in self._loaded:
                self.machine.interrupt()
                self._loaded.add(self.machine.current)
            return self._launch(args, size)
        except CUDARuntimeError as error:
            raise CUDADriverError(error.status) from error

    def _launch(self, args: tuple[Any, ...], size: int | None) -> Any:
        parameters = [*self.inputs, *self.outputs]
        assert len(args) == len(parameters), f"{self.name} takes {len(parameters)} arguments"
        stream = current_stream(self.machine)
        arrays = [pair for pair in zip(parameters, args, strict=True) if isinstance(pair[1], ndarray)]
        tables = [arg._values for _, arg in arrays if arg.dtype == ADDRESS]
        for parameter, arg in zip(parameters, args, strict=True):
            self._check(parameter, arg, output=parameter in self.outputs)
        function, count = self._compiled(args), self._count(args, size)
        values = [arg.data.ptr if isinstance(arg, ndarray) else arg for arg in args]
        memories = [(arg._memory, parameter in self.outputs) for parameter, arg in arrays]
        self.machine.kernel_launches += 1

        def run() -> None:
            for memory, output in memories:
                memory.access(stream, write=output)
            follow(self.machine, stream, tables)
            function(count, *values)

        stream.enqueue(run, launch=True)
        return args[-1]

    def _check(self, parameter: Parameter, arg: Any, *, output: bool) -> None:
        if isinstance(arg, ndarray):
            self.machine.use(arg._memory.device)
            assert arg._values.flags.c_contiguous
            if arg.dtype != parameter.dtype:
                raise TypeError(f"Type is mismatched. {parameter.name} {arg.dtype} {parameter.dtype}")
        elif output or parameter.raw:
            raise TypeError("Output arguments type must be cupy.ndarray")
        else:
            assert isinstance(arg, int | float | np.generic), f"{parameter.name} is neither an array nor a number"

    def _count(self, args: tuple[Any, ...], size: int | None) -> int:
        parameters = [*self.inputs, *self.outputs]
        lengths = {
            arg.size
            for parameter, arg in zip(parameters, args, strict=True)
            if isinstance(arg, ndarray) and not parameter.raw
        }
        if bool(lengths) == (size is not None):
            raise ValueError("Loop size is undecided.")
        assert len(lengths) <= 1, "this kernel does not broadcast"
        return size if size is not None else lengths.pop()

    def _compiled(self, args: tuple[Any, ...]) -> Any:
        declared, bound_names = [], []
        for parameter, arg in zip([*self.inputs, *self.outputs], args, strict=True):
            ctype, name = C_TYPES[parameter.dtype.name], parameter.name
            constant = "" if parameter in self.outputs else "const "
            if not isinstance(arg, ndarray):
                declared.append(f"{ctype} {name}")
            elif parameter.raw:
                declared.append(f"{constant}{ctype} *{name}")
            else:
                declared.append(f"{constant}{ctype} *_raw_{name}")
                bound_names.append(f"{constant}{ctype} &{name} = _raw_{name}[i];")
        function = compiled(SOURCE.format(
            preamble=self.preamble,
            parameters=", ".join(declared),
            names=" ".join(bound_names),
            operation=self.operation,
        ))  # fmt: skip
        types = [
            ctypes.c_void_p if isinstance(arg, ndarray) else np.ctypeslib.as_ctypes_type(parameter.dtype)
            for parameter, arg in zip([*self.inputs, *self.outputs], args, strict=True)
        ]
        function.argtypes, function.restype = [ctypes.c_ssize_t, *types], None
        return function


def follow(machine: Machine, stream: Stream, tables: list[NDArray[np.int64]]) -> None:
    """What a GPU finds out when it follows a pointer that was never written, or is the host's or another GPU's."""
    for value in {int(value) for table in tables for value in np.unique(table)}:
        memory = machine.find(value)
        if abs(value) < FIRST_ADDRESS:
            continue
        if memory is None or memory.device != stream.device_id:
            raise CUDARuntimeError(700)
        memory.access(stream, write=False)


@functools.cache
def folder() -> Path:
    """For the kernels of this session."""
    made = Path(tempfile.mkdtemp(prefix="kernels-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@functools.cache
def compiled(source: str) -> Any:
    """The kernel as a function of the count and its parameters."""
    compiler = shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler, with which kernels run where there is no GPU")
    text = folder() / f"{hashlib.sha256(source.encode()).hexdigest()[:16]}.cpp"
    text.write_text(source)
    library = text.with_suffix(".so")
    done = subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-Wall", "-o", library, text], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library)).kernel_

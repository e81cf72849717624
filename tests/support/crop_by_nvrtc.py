"""Compiles the cropping kernel for GPUs that are not here: CuPy's arrays and the CUDA compiler that it finds, NVRTC.

`python -m tests.support.crop_by_nvrtc ARCHITECTURE…` writes a line for each, its name and the bytes of the code. Around
the kernel is what CuPy puts around that of an ElementwiseKernel (cupy/_core/_kernel.pyx).
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from spai_runtime.engines.cuda import crop

SOURCE = """
#include <cupy/complex.cuh>
#include <cupy/carray.cuh>
#include <cupy/atomics.cuh>
#include <cupy/math_constants.h>
{preamble}
extern "C" __global__ void crop(
    const CArray<long long, 2, true, true> table, const long long rows, const long long columns,
    CArray<unsigned char, 1, true, true> _raw_views, CIndexer<1, true> _ind
) {{
  CUPY_FOR(i, _ind.size()) {{
    _ind.set(i);
    unsigned char &views = _raw_views[_ind.get()];
    {operation};
  }}
}}
"""


def folders() -> list[Path]:
    """That headers are in."""
    cupy = [folder / "_core" / "include" for folder in packages("cupy")]
    parts = [folder / "cupy" / "_cccl" / part for folder in cupy for part in ("libcudacxx", "thrust", "cub")]
    return [*cupy, *parts, *(folder / "cu13" / "include" for folder in packages("nvidia"))]


def packages(name: str) -> list[Path]:
    spec = find_spec(name)
    return [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []


def compiled(nvrtc: Any, architecture: str) -> int:
    """:returns: bytes of the code"""
    source = SOURCE.format(preamble=crop._CODES + crop._SHOWN, operation=crop._CROP)
    program = nvrtc.createProgram(source, "crop.cu", (), ())
    options = ("--std=c++17", f"-arch={architecture}", *(f"-I{folder}" for folder in folders()))
    try:
        nvrtc.compileProgram(program, options)
    except Exception:
        sys.exit(nvrtc.getProgramLog(program))
    return len(nvrtc.getCUBIN(program))


if __name__ == "__main__":
    import cupy_backends.cuda.libs.nvrtc as library

    try:
        library.getVersion()
    except RuntimeError as error:
        sys.exit(f"no NVRTC: {error}")
    for name in sys.argv[1:]:
        print(name, compiled(library, name))  # noqa: T201

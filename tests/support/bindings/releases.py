"""The real bindings of TensorRT, without its libraries: those are three files that a C compiler makes.

The bindings alone are on PyPI (`make test` puts them into the virtual environment); what they load is not. They import
all the same over libraries that hold the few functions they ask for by name, each of which returns null.
"""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from platform import machine

import pytest

from tests.support.bindings import dump
from tests.support.bindings.api import Api

RELEASES = ("10.12", "11.4")  # the oldest that is supported, and the latest: see BINDINGS in the Makefile
RTX, CUPY = "tensorrt_rtx", "cupy"
FOLDER = Path(sys.prefix) / "bindings"
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
ASKED_FOR = re.compile(
    rb"\0((?:create|get|init)\w*(?:_INTERNAL|PluginRegistry|NvOnnxParserVersion|NvInferPlugins))(?=\0)"
)


def missing(name: str) -> str | None:
    """What has to be there first, for a release, RTX or CUPY; None: nothing."""
    if (sys.platform, machine()) != ("linux", "x86_64"):
        return "the bindings are for Linux on x86-64"
    if name == RTX:
        return None if find_spec(RTX) else f"{RTX} is not installed: pip install tensorrt-rtx"
    if name == CUPY:
        return None if (FOLDER / CUPY / CUPY).is_dir() else f"CuPy is not in {FOLDER / CUPY}: run `make bindings`"
    if not (FOLDER / name / "tensorrt_bindings").is_dir():
        return f"the bindings of TensorRT {name} are not in {FOLDER / name}: run `make bindings`"
    return None if compiler() else "there is no C compiler: install gcc"


def available(name: str) -> str:
    """The name; what is missing is an error in CI, and elsewhere a reason to skip."""
    reason = missing(name)
    if reason and os.environ.get("CI") and not reason.startswith("the bindings are for"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    return name


def compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")


def environment(release: str, folder: Path) -> dict[str, str]:
    """In which Python imports `tensorrt_bindings`.

    :param folder: where the libraries are made, if they are not there
    """
    package = FOLDER / release / "tensorrt_bindings"
    functions = sorted({name.decode() for name in ASKED_FOR.findall((package / "tensorrt.so").read_bytes())})
    source = folder / f"{release}.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in functions))
    for library in LIBRARIES:
        name = f"lib{library}.so.{release.partition('.')[0]}"
        if not (folder / name).exists():
            command = [str(compiler()), "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", folder / name, source]
            subprocess.run(command, check=True)
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder),
        "PYTHONPATH": os.pathsep.join((str(package.parent), *sys.path)),
    }


def run(code: list[str], environment_: dict[str, str]) -> str:
    """What Python prints. :param code: its arguments"""
    return subprocess.run([sys.executable, *code], env=environment_, check=True, capture_output=True, text=True).stdout


def api_of(name: str, folder: Path) -> Api:
    """The names and signatures of a release or RTX."""
    if name == RTX:
        return Api.of(run([dump.__file__, RTX], dict(os.environ)))
    return Api.of(run([dump.__file__, "tensorrt_bindings"], environment(name, folder)))

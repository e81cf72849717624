"""What a GPU machine without a network lacks, fetched with pip, made small and divided into parts."""

import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu.offline import fatbin
from gpu.offline.parts import CONTENTS, ENDING, Contents, PackError, divide

ROOT = Path(__file__).parents[3]

# It has PyTorch, CuPy, timm, onnx, onnxscript, ONNX Runtime for CPUs, NumPy, Pillow, typer, rich and pytest.
LACKING = ("msgspec",)
PYTHON, ARCHITECTURE = "3.12", 90
GLIBC = (17, 27, 28)  # manylinux_2_N: pip takes each by its name alone

BASE, RUNTIME = "base", "onnxruntime"
PROVIDER = Path("onnxruntime", "capi", "libonnxruntime_providers_cuda.so")
# Plans are run without it; programs in C load the other.
UNUSED = ("capi/libonnxruntime_providers_tensorrt.so", "capi/libonnxruntime.so.*")


@dataclass(frozen=True)
class Wanted:
    """For Linux on x86-64.

    :param python: its version, e.g. `3.12`
    :param architecture: compute capability × 10 of the GPU; None keeps the machine code for all
    :param lacking: distributions that are packed as they are, without what they depend on
    """

    python: str = PYTHON
    architecture: int | None = ARCHITECTURE
    lacking: Sequence[str] = LACKING


def pack(folder: Path, wanted: Wanted) -> list[Path]:
    """:param folder: is replaced, if it is a pack
    :returns: its parts
    :raises PackError: it is no pack, pip finds no wheel, or there is no code for that GPU
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "a" / CONTENTS).exists():
        raise PackError(f"{folder} holds something else than a pack; name another folder, or remove it")
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        base, runtime = work / BASE, work / RUNTIME
        _fetch(wanted.lacking, wanted.python, base)
        write_metadata(base)
        _fetch(["onnxruntime-gpu"], wanted.python, runtime)
        _shrink(runtime, wanted.architecture)
        archives = [_archive(base), _archive(runtime)]
        shutil.rmtree(folder, ignore_errors=True)
        Contents(wanted.python, wanted.architecture, divide(archives, folder)).write(folder / "a")
    return sorted(folder.iterdir())


def write_metadata(site: Path) -> None:
    """Name and version, without which Python does not count this package as installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name, version = project["name"], project["version"]
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (folder / "METADATA").write_text(text, encoding="utf-8")


def _fetch(names: Sequence[str], python: str, site: Path) -> None:
    """The wheels of these distributions, unpacked there as pip would install them."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--implementation=cp", f"--python-version={python}", "--platform=manylinux2014_x86_64"]
    command += [f"--platform=manylinux_2_{number}_x86_64" for number in GLIBC]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([*command, f"--dest={folder}", *names], capture_output=True, text=True, check=False)
        if done.returncode:
            raise PackError(f"pip fetches no wheel for Python {python}: {done.stderr.strip().splitlines()[-1]}")
        for wheel in Path(folder).glob("*.whl"):
            with zipfile.ZipFile(wheel) as file:
                file.extractall(site)


def _shrink(runtime: Path, architecture: int | None) -> None:
    for pattern in UNUSED:
        for path in (runtime / "onnxruntime").glob(pattern):
            path.unlink()
    if architecture is None:
        return
    try:
        fatbin.keep(runtime / PROVIDER, architecture)
    except ValueError as error:
        raise PackError(f"{error}; name one of these, or pack it --whole") from error


def _archive(folder: Path) -> Path:
    path = folder.with_name(f"{folder.name}{ENDING}")
    with tarfile.open(path, "w:xz", preset=3) as file:
        file.add(folder, ".")
    return path

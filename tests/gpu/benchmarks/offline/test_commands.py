"""What is typed, and what is said where it cannot be done."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from gpu.offline import commands
from gpu.offline.device import Device
from gpu.offline.environment import environment
from gpu.offline.pack import Wanted, pack, write_metadata
from gpu.offline.parts import Contents, PackError
from gpu.offline.steps import Command, Step

from tests.support.lacking import Lacking

ROOT = Path(__file__).parents[4]
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PRINTS = "import os; print(os.environ['PYTHONPATH'].split(os.pathsep)[0])"
STEPS = (
    Step("first", "", 60, [Command(("-c", PRINTS))]),
    Step("second", "", 60, [Command(("-c", "raise SystemExit(1)"))]),
)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of compute capability 8.9, and two steps."""
    monkeypatch.setattr(commands, "first", lambda: Device("NVIDIA L4", 89))
    monkeypatch.setattr(commands, "STEPS", STEPS)


def gathered(work: Path, python: str = PYTHON, architecture: int | None = 89) -> None:
    """As after `gather` of a pack without archives."""
    work.mkdir()
    Contents(python, architecture, ()).write(work)


def test_without_a_gpu_it_says_so_in_one_line(tmp_path: Path) -> None:
    """With nothing but Python itself, and before anything is run or written."""
    folder = tmp_path / "output"
    program = [sys.executable, "-I", "-S", ROOT / "benchmarks" / "gpu" / "offline"]
    blind = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [*program, "run", "all", "--output", folder], env=blind, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("there is no NVIDIA GPU here: ")
    assert done.stdout == ""
    assert not folder.exists()


@pytest.mark.usefixtures("device")
def test_steps_are_run_in_their_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the packages that were gathered, and the exit code says that one failed."""
    arguments = ["run", "second", "first", "--work", str(tmp_path / "work"), "--output", str(tmp_path / "output")]
    assert commands.main(arguments) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["NVIDIA L4, compute capability 8.9", str(ROOT)]
    assert [line.partition(",")[0] for line in said[2:]] == ["passed  first", "failed  second"]
    assert commands.main([*arguments[:1], "first", *arguments[3:]]) == 0


@pytest.mark.usefixtures("device")
def test_the_output_is_where_the_variable_says(tmp_path: Path) -> None:
    variables = {**os.environ, "OUT": str(tmp_path / "out")}
    assert commands.main(["run", "first", "--work", str(tmp_path / "work")], variables) == 0
    assert (tmp_path / "out" / "first" / "step.json").exists()


@pytest.mark.parametrize(
    ("python", "architecture", "sentence"),
    [
        ("3.9", 89, f"this is Python {PYTHON}, and what was gathered is for 3.9: pack --python {PYTHON}"),
        (PYTHON, 90, "NVIDIA L4 has compute capability 8.9, and ONNX Runtime was packed for 9.0: pack --whole"),
    ],
)
@pytest.mark.usefixtures("device")
def test_a_pack_for_another_machine_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], python: str, architecture: int, sentence: str
) -> None:
    gathered(tmp_path / "work", python, architecture)
    assert commands.main(["run", "all", "--work", str(tmp_path / "work")]) == 2
    assert capsys.readouterr().err == f"{sentence}\n"


@pytest.mark.parametrize("architecture", [89, 86, 80, None])
@pytest.mark.usefixtures("device")
def test_a_pack_for_this_gpu_is_taken(tmp_path: Path, architecture: int | None) -> None:
    gathered(tmp_path / "work", architecture=architecture)
    arguments = ["run", "first", "--work", str(tmp_path / "work"), "--output", str(tmp_path / "output")]
    assert commands.main(arguments) == 0


def test_missing_parts_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["gather", str(tmp_path), "--work", str(tmp_path / "work")]) == 2
    assert capsys.readouterr().err == f"{tmp_path} holds no part of a pack\n"
    gathered(tmp_path / "part")
    assert commands.main(["gather", str(tmp_path / "part"), "--work", str(tmp_path / "work")]) == 0
    assert capsys.readouterr().out == "everything is there\n"


def test_collecting_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["collect", str(tmp_path), "--results", str(tmp_path / "results")]) == 2
    assert capsys.readouterr().err == f"no step left a result of the published model in {tmp_path}\n"


def test_packages_and_libraries_of_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's libraries are found where PyTorch's wheels have them, by the loader and beside ONNX Runtime."""
    for name in ("cu13", "cudnn"):
        (tmp_path / "machine" / "nvidia" / name / "lib").mkdir(parents=True)
    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "machine")
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    libraries = tmp_path / "machine" / "nvidia"
    for _ in range(2):
        found = environment([tmp_path / "site"], {"LD_LIBRARY_PATH": "/before", "PYTHONPATH": "/own"})
    paths = [tmp_path / "site", ROOT, ROOT / "benchmarks", "/own"]
    assert found["PYTHONPATH"].split(os.pathsep) == list(map(str, paths))
    wanted = [str(libraries / name / "lib") for name in ("cu13", "cudnn")]
    assert found["LD_LIBRARY_PATH"].split(os.pathsep)[:2] == wanted
    assert found["LD_LIBRARY_PATH"].endswith(":/before")
    assert (tmp_path / "site" / "nvidia").resolve() == libraries
    assert "LD_LIBRARY_PATH" not in environment([], {})


def test_the_metadata_is_that_of_the_project(tmp_path: Path) -> None:
    """Python counts it as installed, which an export asks for."""
    write_metadata(tmp_path / "site")
    bare = Lacking(tmp_path / "bare", ["spai-toolkit"])
    code = "from importlib.metadata import version; print(version('spai-toolkit'))"
    path = os.pathsep.join(map(str, (tmp_path / "site", bare.folder)))
    assert bare.python("-c", code, cwd=tmp_path).returncode == 1
    done = bare.python("-c", code, cwd=tmp_path, PYTHONPATH=path)
    assert f'version = "{done.stdout.strip()}"' in (ROOT / "pyproject.toml").read_text()


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(PackError, match="holds something else than a pack"):
        pack(tmp_path, Wanted())
    assert (tmp_path / "thesis.tex").exists()

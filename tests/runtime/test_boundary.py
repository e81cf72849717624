"""The runtime stands alone: no torch, nothing of training or export, no engine until one is loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.boundary import BLOCK, ENGINES, HEAVY, python
from tests.support.commands import spawn
from tests.support.images import Write

EVERY_MODULE = """
import importlib, pkgutil
import spai_runtime
names = [module.name for module in pkgutil.walk_packages(spai_runtime.__path__, "spai_runtime.")]
for name in names:
    importlib.import_module(name)
assert not Block.asked, Block.asked
print(*names)
"""

SCORE_PLAINLY = """
import sys
from spai_runtime import Detector
with Detector.load(sys.argv[1], device="cpu", backend=sys.argv[3]) as detector:
    detector.score(sys.argv[2])
"""

SCORE = """
import sys
from spai_runtime import Detector
with Detector.load(sys.argv[1], device="cpu") as detector:
    print(repr(detector.score(sys.argv[2])))
assert not Block.asked, Block.asked
"""


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_engines_send_nothing_home(tiny_detector: Path, photo: Write, tmp_path: Path, backend: str) -> None:
    """Else they keep what they will send, and a number for the machine, below the home folder."""
    pytest.importorskip(backend)
    opted_out = "ORT_DISABLE_TELEMETRY", "CI"  # in CI, OpenVINO sends nothing anyway
    environment = {name: value for name, value in os.environ.items() if name not in opted_out}
    home = tmp_path / "home"
    home.mkdir()
    arguments = "-c", SCORE_PLAINLY, str(tiny_detector), str(photo("a.png", 60, 60)), backend
    subprocess.run([sys.executable, *arguments], check=True, env={**environment, "HOME": str(home)})
    assert [*home.rglob("*")] == []


def test_the_block_blocks() -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        python("import torch")
    assert "No module named 'torch'" in caught.value.stderr


def test_every_module_imports_without_any_of_them() -> None:
    names = python(EVERY_MODULE, blocked=HEAVY + ENGINES).split()
    package = Path(__file__).parents[2] / "spai_runtime"
    files = [path.relative_to(package.parent).with_suffix("") for path in package.rglob("*.py")]
    expected = {".".join(path.parts).removesuffix(".__init__") for path in files} - {"spai_runtime"}
    assert set(names) == expected


def test_an_image_is_scored(tiny_detector: Path, photo: Write) -> None:
    assert python(SCORE, tiny_detector, photo("a.png", 70, 90)).startswith("Score(score=0.")


def test_the_command_scores(tiny_detector: Path, photo: Write) -> None:
    path = photo("a.png", 70, 90)
    ran = spawn(path, "--engine", tiny_detector, prelude=BLOCK.format(names=HEAVY))
    assert (ran.code, ran.stderr) == (0, "")
    assert str(path) in ran.stdout


def test_help_and_version_need_no_engine() -> None:
    prelude = BLOCK.format(names=HEAVY + ENGINES)
    assert "INPUT" in spawn("--help", prelude=prelude).stdout
    ran = spawn("--version", prelude=prelude)
    assert (ran.code, ran.stdout.split()[0], ran.stderr) == (0, "spai-toolkit", "")


def test_a_missing_engine_library_is_named(tiny_detector: Path, photo: Write) -> None:
    ran = spawn(photo("a.png", 70, 90), "--engine", tiny_detector, prelude=BLOCK.format(names=HEAVY + ENGINES))
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr == "spai-run: ONNX Runtime is not installed: pip install '.[cpu]'\n"

"""The README's commands, run as a reader would: every ```bash line, every ```python block, every ```console line."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from golden import CHECKPOINT, IMAGES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def lines(language: str) -> list[str]:
    commands = (re.sub(r"\s+# .*", "", line) for block in blocks(language) for line in block.splitlines())
    return [command for command in commands if command]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README speaks of; the golden checkpoint stands in for the official one."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "photos").mkdir()
    for path in IMAGES[:3]:
        shutil.copy(path, folder / "photos")
    shutil.copy(CHECKPOINT, folder / "spai.pth")
    shutil.copy(ROOT / "examples" / "photo_china.jpg", folder / "photo.jpg")
    (folder / "notes.txt").write_text("not an image")
    (folder / "list.txt").write_text("photo.jpg\n")
    (folder / "dataset.csv").write_text("image,class,split\nphoto.jpg,0,test\nphotos/none.png,1,train\n")
    return folder


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    return subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_commands_in_their_order(desk: Path) -> None:
    commands = lines("bash")
    assert len(commands) >= 6
    for command in commands:
        done = run(command, desk)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    for name in ("scores.csv", "scores.jsonl", "spai/detector.json", "spai/encoder.onnx", "spai/head.onnx"):
        assert (desk / name).is_file()


def test_python_blocks(desk: Path) -> None:
    run("spai-export --ckpt spai.pth --output spai", desk)
    for block in blocks("python"):
        (desk / "block.py").write_text(block)
        done = run(f"{sys.executable} block.py", desk)
        assert done.returncode == 0, done.stderr
        assert "photo.jpg" in done.stdout
        assert "notes.txt not an image" in done.stdout


def test_console_lines_are_those_that_tests_know() -> None:
    """`make demo` and the wheel are tested below, `make test` is what runs this, and extras are read here."""
    assert lines("console") == ["make demo", "make test", "pip install '.[cpu]'", "pip install '.[export]'"]
    extras = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(re.search(rf"^{name} = \[", extras, flags=re.MULTILINE) for name in ("cpu", "export"))


def test_every_option_is_in_the_help() -> None:
    for command in ("spai-run", "spai-export", "spai-train"):
        assert run(f"{command} --help", ROOT).returncode == 0
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README))
    shown = "".join(run(f"{command} --help", ROOT).stdout for command in ("spai-run", "spai-export", "spai-train"))
    assert options <= set(re.findall(r"--[a-z][a-z-]+", shown)), "the README names an option that no command has"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="there is no git checkout to clone")
def test_make_demo_in_a_fresh_clone(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    done = run(f"make demo PYTHON={sys.executable}", clone)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if "examples/" in line]
    assert len(rows) == len([path for path in (clone / "examples").iterdir() if path.suffix in (".jpg", ".png")])
    assert "no verdict on real photographs" in done.stderr
    assert not list((clone / ".venv-run").rglob("torch/__init__.py"))


def test_an_installed_wheel_has_the_demo(tmp_path: Path) -> None:
    """Built, unpacked elsewhere, run from a third place."""
    pip = f"{sys.executable} -m pip --quiet"
    assert run(f"{pip} wheel --no-deps --wheel-dir {tmp_path} {ROOT}", tmp_path).returncode == 0
    (wheel,) = tmp_path.glob("*.whl")
    assert run(f"{pip} install --no-deps --target site {wheel}", tmp_path).returncode == 0
    shutil.copy(ROOT / "examples" / "photo_china.jpg", tmp_path)
    code = "import sys, spai_runtime.cli as cli; print(cli.__file__); sys.exit(cli.main(['photo_china.jpg']))"
    done = run(f'PYTHONPATH={tmp_path}/site {sys.executable} -c "{code}"', tmp_path)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site") in done.stdout
    assert "photo_china.jpg,0." in done.stdout
    assert done.stderr.count("\n") == 1
    assert "no verdict on real photographs" in done.stderr


def test_the_table_of_the_demo_detector_is_that_of_its_report() -> None:
    report = (ROOT / "weights" / "demo" / "report.md").read_text(encoding="utf-8")
    table = "\n".join(line for line in report.splitlines() if line.startswith("|"))
    assert table.count("\n") >= 6
    assert table in README


@pytest.mark.parametrize("name", ["encoder", "filter", "run-medium"])
def test_ratios_are_those_of_committed_results(name: str) -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    assert f"{result['ratio']:.3g} ×" in README

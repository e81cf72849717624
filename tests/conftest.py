"""What tests share as fixtures: small detectors, sample images, and spai-run in this process."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from spai_export.directory import export
from spai_runtime.cli.run import main
from spai_train.checkpoint import Card, save_checkpoint
from spai_train.cli import main as train_main
from spai_train.detectors.spai.model import SPAI, SPAIConfig
from tests.golden import CHECKPOINT
from tests.support.commands import Ran, Run
from tests.support.images import Write, pixels
from tests.support.models import TINY


@pytest.fixture(scope="session", autouse=True)
def _every_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests keep in the user's cache is not the user's; processes that they start see it too.

    Graphs in fp32 run in fp32 on every processor, but in tests that ask for the fixture `bf16`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPAI_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("spai_runtime.engines.openvino.has_bf16", lambda: False)
        yield


@pytest.fixture
def bf16(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A processor that multiplies bf16, and a cache that is empty. OpenVINO rounds to bf16 on any processor.

    :returns: the cache
    """
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'spai-toolkit[openvino]'")
    monkeypatch.setattr("spai_runtime.engines.openvino.has_bf16", lambda: True)
    monkeypatch.setenv("SPAI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def tiny_config() -> SPAIConfig:
    return TINY


@pytest.fixture(scope="session")
def tiny_model() -> SPAI:
    """A SPAI of random weights, the same in every run."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SPAI(TINY).eval()


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_model: SPAI, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    save_checkpoint(path, tiny_model, Card(name="tiny"))
    return path


@pytest.fixture(scope="session")
def tiny_detector(tiny_checkpoint: Path) -> Path:
    """Directory of the exported tiny model; do not write into it."""
    return export(tiny_checkpoint, tiny_checkpoint.parent / "detector").directory


@pytest.fixture(scope="session")
def golden_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the exported golden checkpoint; do not write into it."""
    return export(CHECKPOINT, tmp_path_factory.mktemp("golden") / "detector").directory


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """spai-run in this process: `run("photos", "--engine", directory)`."""
    return _in_this_process(main, capfd)


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Run:
    """spai-train in this process: `call("evaluate", "images.csv", "--engine", directory)`."""
    return _in_this_process(train_main, capfd)


def _in_this_process(command: Callable[[list[str]], int], capfd: pytest.CaptureFixture[str]) -> Run:
    def ran(*arguments: object) -> Ran:
        capfd.readouterr()
        code = command([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return ran


@pytest.fixture
def photo(tmp_path: Path) -> Write:
    """Writes an image: `photo("a.png", 40, 50)`, or `photo("a.tif", 40, 50, mode="CMYK")`."""

    def write(name: str, height: int, width: int, *, seed: int = 0, mode: str = "RGB", **options: object) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(height, width, seed)).convert(mode).save(path, **options)
        return path

    return write


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder that every user may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)

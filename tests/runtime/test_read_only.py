"""spai-run where nothing can be written, as a user without rights: in a container, say."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.support.commands import Run
from tests.support.images import pixels
from tests.support.users import as_nobody

HOMES = ["a home that is not there", "a home of root", "a cache of root"]


@pytest.fixture
def arguments(open_folder: Path, tiny_detector: Path) -> tuple[object, ...]:
    """Of spai-run, for an image and a detector that all may read."""
    Image.fromarray(pixels(70, 90, 0)).save(open_folder / "a.png")
    shutil.copytree(tiny_detector, open_folder / "detector").chmod(0o755)
    return open_folder / "a.png", "--engine", open_folder / "detector", "--device", "cpu"


def lock(home: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves no place to write to: the environment names what may be read and no more, or what is not there."""
    locked = folder / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    monkeypatch.delenv("SPAI_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(locked / "none" if home == HOMES[0] else locked))
    if home == HOMES[2]:
        monkeypatch.setenv("SPAI_CACHE", str(locked))


@pytest.mark.parametrize("home", HOMES)
def test_scores_are_the_same(
    home: str, arguments: tuple[object, ...], run: Run, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = run(*arguments)
    lock(home, open_folder, monkeypatch)
    with as_nobody():
        assert run(*arguments) == usual
    assert (usual.code, usual.stderr) == (0, "")
    assert [*(open_folder / "locked").iterdir()] == []


@pytest.mark.usefixtures("bf16")
def test_what_cannot_be_kept_costs_speed_and_is_said(
    arguments: tuple[object, ...], run: Run, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bf16 would have to be compared with fp32 in every run again: fp32 runs."""
    usual = run(*arguments, "--precision", "fp32")
    lock(HOMES[0], open_folder, monkeypatch)
    with as_nobody():
        ran = run(*arguments)
    assert (ran.code, ran.stdout) == (0, usual.stdout)
    assert ran.stderr.startswith("spai-run: whether bf16 gives the scores of fp32 could not be kept")
    assert ran.stderr.count("\n") == 1

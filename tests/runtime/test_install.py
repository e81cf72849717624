"""How a hint names what installs an extra, by where the package came from."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from spai_runtime import install

ROOT = Path(__file__).parents[2]
REPOSITORY = {"url": "https://github.com/a/b", "vcs_info": {"vcs": "git", "commit_id": "0"}}


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    install.from_checkout.cache_clear()
    yield
    install.from_checkout.cache_clear()


def installed(monkeypatch: pytest.MonkeyPatch, folder: Path, source: str | None) -> None:
    """The package lies in a folder of packages, and pip has noted this of it."""
    monkeypatch.setattr(install, "__file__", str(folder / "spai_runtime" / "install.py"))
    noted = SimpleNamespace(read_text=lambda _: source)
    monkeypatch.setattr(install, "distribution", lambda _: noted)


def test_this_is_a_checkout() -> None:
    assert install.install("export") == "pip install '.[export]'"


@pytest.mark.parametrize(
    ("source", "requirement"),
    [
        (None, "'spai-toolkit[cpu]'"),
        ("no JSON", "'spai-toolkit[cpu]'"),
        (json.dumps(REPOSITORY), "'spai-toolkit[cpu]'"),
        (json.dumps({"url": "file:///home/a/spai", "dir_info": {}}), "'.[cpu]'"),
        (json.dumps({"url": "file:///home/a/spai", "dir_info": {"editable": True}}), "'.[cpu]'"),
    ],
)
def test_a_package_is_named_unless_it_was_installed_from_a_folder(
    source: str | None, requirement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, tmp_path, source)
    assert install.extra("cpu") == requirement
    assert install.install("cpu") == f"pip install {requirement}"


def test_a_project_of_another_name_is_no_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, tmp_path, None)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\n')
    assert not install.from_checkout()


def test_no_hint_is_written_out_elsewhere() -> None:
    packages = [path for name in ("runtime", "train", "export") for path in (ROOT / f"spai_{name}").rglob("*.py")]
    written = [path.name for path in packages if "spai-toolkit[" in path.read_text() or "'.[" in path.read_text()]
    assert written == ["install.py"]

"""ModelOpt, as the exporter asks for it."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fake_modelopt in the place of ModelOpt."""
    folder = tmp_path / "packages" / "modelopt" / "onnx"
    folder.mkdir(parents=True)
    for path in (folder.parent / "__init__.py", folder / "__init__.py"):
        path.touch()
    shutil.copy(Path(__file__).parents[1] / "support" / "fake_modelopt.py", folder / "quantization.py")
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))

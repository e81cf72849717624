"""What tests of training share."""

import pytest

from spai_train.training import loop


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs leave an empty picture: to draw it takes twice as long as the epoch. Fixtures of modules draw it."""
    monkeypatch.setattr(loop, "draw_curves", lambda path, _: path.touch())

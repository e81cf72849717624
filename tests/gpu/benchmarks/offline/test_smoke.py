"""The smoke score, of the CPU beside itself."""

import json
from pathlib import Path

import numpy as np
import pytest
from gpu.offline import smoke

from spai_runtime.detector import Detector

EXAMPLES = Path(__file__).parents[4] / "examples"


def test_logits_of_two_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compare = smoke.compare
    images = [EXAMPLES / "real_1.png", EXAMPLES / "generated_3.jpg"]
    monkeypatch.setattr(
        smoke, "compare", lambda found: compare([path for path in found if path in images], ("cpu", "cpu"))
    )
    assert smoke.main(tmp_path) == 0
    found = json.loads((tmp_path / "smoke.json").read_text())
    with Detector.load(device="cpu") as detector:
        wanted = [detector.score(path).logit for path in sorted(images)]
    assert found["images"] == ["generated_3.jpg", "real_1.png"]
    assert found["logits"] == {"cpu": [pytest.approx(logit, rel=1e-3) for logit in wanted]}
    assert found["largest_difference"] == 0
    assert json.loads(capsys.readouterr().out)["allowed"] == 0.01


@pytest.mark.parametrize(("off_by", "code"), [(0.009, 0), (0.011, 1), (float("inf"), 1)])
def test_logits_that_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off_by: float, code: int) -> None:
    monkeypatch.setattr(smoke.json_files, "write", lambda *_: None)
    found = {"engines": {}, "largest_difference": np.float64(off_by), "allowed": smoke.ALLOWED}
    monkeypatch.setattr(smoke, "compare", lambda _: found)
    assert smoke.main(tmp_path) == code

"""What a detector says of images that it does not call real: `ai`, or a word of its own."""

import csv
import json
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest

from spai_runtime.errors import ManifestError
from spai_runtime.manifest import Manifest
from spai_train.checkpoint import Card, load_checkpoint, save_checkpoint
from tests.support.commands import Run

Write = Callable[..., Path]


def says(directory: Path, target: Path, positive: object, threshold: float = 0.0) -> Path:
    """A copy of an exported directory that says another word of images above the threshold."""
    shutil.copytree(directory, target)
    path = target / "detector.json"
    content = json.loads(path.read_text())
    content |= {"name": target.name, "positive": positive, "threshold": {"value": threshold, "source": "a test"}}
    path.write_text(json.dumps(content))
    return target


def labels(stdout: str, column: str = "label") -> list[str]:
    return [row[column] for row in csv.DictReader(StringIO(stdout))]


def test_rows_have_its_word(tiny_detector: Path, photo: Write, run: Run, tmp_path: Path) -> None:
    folder = photo("a.png", 70, 90).parent
    edited = says(tiny_detector, tmp_path / "edits", "edited")
    assert labels(run(folder, "--engine", edited).stdout) == ["edited"]
    assert labels(run(folder, "--engine", edited, "--threshold", 1).stdout) == ["real"]
    ran = run(folder, "--engine", edited, "--output", tmp_path / "scores.csv")
    record = json.loads((tmp_path / "scores.csv.run.json").read_text())
    assert (ran.code, record["labels"], record["run"]["positive"]) == (0, {"edited": 1}, "edited")


def test_kept_rows_are_counted(tiny_detector: Path, photo: Write, run: Run, tmp_path: Path) -> None:
    folder = photo("a.png", 70, 90).parent
    edited = says(tiny_detector, tmp_path / "edits", "edited")
    output = tmp_path / "scores.csv"
    assert run(folder, "--engine", edited, "--output", output).code == 0
    photo("b.png", 90, 70)
    assert run(folder, "--engine", edited, "--output", output, "--resume").code == 0
    assert json.loads((tmp_path / "scores.csv.run.json").read_text())["labels"] == {"edited": 2}


def test_detectors_that_say_different_words_are_not_fused(
    tiny_detector: Path, photo: Write, run: Run, tmp_path: Path
) -> None:
    folder = photo("a.png", 70, 90).parent
    generated = says(tiny_detector, tmp_path / "generated", "ai")
    edited, edits = (says(tiny_detector, tmp_path / name, "edited") for name in ("edited", "edits"))
    ran = run(folder, "--engine", generated, "--engine", edited)
    said = "generated calls images ai, and edited edited: their scores cannot be fused, so run one at a time"
    assert (ran.code, ran.stderr) == (2, f"spai-run: {said}\n")
    ran = run(folder, "--engine", edits, "--engine", edited, "--threshold", 0)
    assert labels(ran.stdout, "fusion_label") == labels(ran.stdout, "edited_label") == ["edited"]


@pytest.mark.parametrize("word", ["real", "error", "", "=cmd", "AI", "x" * 33, "a\nb", None, 3])
def test_words_that_would_mislead_are_refused(tiny_detector: Path, tmp_path: Path, word: object) -> None:
    with pytest.raises(ManifestError, match=r"detector\.json is not a detector\.json: .*positive"):
        Manifest.load(says(tiny_detector, tmp_path / "x", word))


def test_a_checkpoint_keeps_its_word(tiny_checkpoint: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x.safetensors", load_checkpoint(tiny_checkpoint).model(), Card(positive="edited"))
    assert load_checkpoint(tmp_path / "x.safetensors").card.positive == "edited"

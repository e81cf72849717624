"""spai-train evaluate with several engines: each detector, each rule of fusion, and how far they disagree."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from spai_runtime.fusion import Rule
from spai_runtime.images import Picture
from spai_runtime.manifest import Threshold
from spai_train.evaluation.bootstrap import Interval
from spai_train.evaluation.disagreement import Disagreement, Verdicts
from tests.support.commands import Run
from tests.support.images import Write
from tests.support.scored import table_of

NAMES = "tiny", "soft_or"  # the second is named like a rule


@pytest.fixture
def engines(tiny_detector: Path, tmp_path: Path) -> list[object]:
    """Two detectors: the second is calibrated and looks at five crops, where the first looks at tiles."""
    options: list[object] = []
    for name, minimum, calibration in (
        (NAMES[0], 1, None),
        (NAMES[1], 1000, {"method": "platt", "a": 3.0, "b": 0.2, "source": "test"}),
    ):
        engine = Path(shutil.copytree(tiny_detector, tmp_path / f"engine {minimum}"))
        manifest = json.loads((engine / "detector.json").read_text())
        views = {**manifest["views"], "minimum": minimum}
        changed = {**manifest, "name": name, "views": views, "calibration": calibration}
        (engine / "detector.json").write_text(json.dumps(changed))
        options += ["--engine", engine]
    return options


@pytest.fixture
def images(photo: Write, tmp_path: Path) -> Path:
    """A real source and two generators; one image is broken."""
    lines = ["image,class,split,source"]
    for index in range(15):
        source = ("camera", "gan", "diffusion")[index % 3]
        photo(f"{index}.png", 60, 40 + 3 * index, seed=index)
        lines.append(f"{index}.png,{int(source != 'camera')},test,{source}")
    (tmp_path / "4.png").write_bytes(b"broken")
    (tmp_path / "images.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "images.csv"


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def reports(folder: Path) -> dict[str, Any]:
    return {one["detector"]["name"]: one for one in json.loads((folder / "metrics.json").read_text())["reports"]}


def test_each_detector_and_each_rule(
    call: Run, run: Run, engines: list[object], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scores are those of spai-run, and each image was opened once for all detectors."""
    opened, output, really = [], tmp_path / "o", Picture.open

    def counted(source: Any) -> Picture:
        opened.append(source)
        return really(source)

    with monkeypatch.context() as patch:
        patch.setattr("spai_train.evaluation.scored.Picture.open", counted)
        patch.setattr("spai_train.evaluation.page.mistakes_of", lambda _: {})  # which are opened to be shown
        ran = call("evaluate", images, *engines, "--output", output, "--resamples", 20, "--jpeg", 60)
    assert ran.code == 3
    assert ran.stderr == "spai-train: 2 of 30 images could not be scored; scores.csv says why\n"
    assert len(opened) == 30
    assert sorted(path.name for path in output.iterdir()) == [
        "disagreement.csv", "metrics.csv", "metrics.json", "report.html", "robustness.csv", "roc.png", "scores.csv",
    ]  # fmt: skip

    rows = [row for row in read(output / "scores.csv") if row["perturbation"] == "none"]
    for rule in Rule:
        scored = tmp_path / f"{rule}.csv"
        assert run(images, *engines, "--fuse", rule, "--output", scored).code == 3
        for row, expected in zip(rows, read(scored), strict=True):
            detectors = [f"{name}_{column}" for name in NAMES for column in ("score", "logit", "label")]
            assert [row[name] for name in detectors] == [expected[name] for name in detectors]
            fused = [row[f"fusion_{rule}_{column}"] for column in ("score", "label")]
            assert fused == [expected["fusion_score"], expected["fusion_label"]]
            assert bool(row["error"]) == bool(expected["error"]) == (row["image"] == "4.png")

    found = reports(output)
    assert [*found] == [*NAMES, *(f"fusion_{rule}" for rule in Rule)]
    for name, report in found.items():
        known = [row for row in rows if row["source"] in ("camera", "diffusion") and not row["error"]]
        expected_area = roc_auc_score(
            [int(row["class"]) for row in known], [float(row[f"{name}_score"]) for row in known]
        )
        (diffusion,) = [one for one in report["results"][0]["sources"] if one["source"] == "diffusion"]
        assert diffusion["metrics"]["auc"]["value"] == pytest.approx(expected_area, abs=1e-12)
    lines = [
        line for line in read(output / "metrics.csv") if (line["perturbation"], line["source"]) == ("none", "mean")
    ]
    assert [line["detector"] for line in lines] == [*found]
    for line in lines:
        assert float(line["auc"]) == found[line["detector"]]["results"][0]["mean"]["auc"]["value"]
    points = read(output / "robustness.csv")
    assert [(point["detector"], point["perturbation"]) for point in points[:3]] == [
        (NAMES[0], "none"), (NAMES[0], "jpeg"), (NAMES[1], "none"),
    ]  # fmt: skip

    disagreement = read(output / "disagreement.csv")
    assert [line["perturbation"] for line in disagreement] == ["none", "jpeg 60"]
    known = [row for row in rows if not row["error"]]
    logits = [[float(row[f"{name}_logit"]) for row in known] for name in NAMES]
    assert float(disagreement[0]["spearman"]) == pytest.approx(spearmanr(*logits).statistic, abs=1e-12)
    labels = [[row[f"{name}_label"] for row in known] for name in NAMES]
    assert float(disagreement[0]["labels_differ"]) == np.mean(np.array(labels[0]) != np.array(labels[1]))
    assert disagreement[0]["images"] == "14"


def test_one_folder_of_several_is_compared(call: Run, engines: list[object], images: Path, tmp_path: Path) -> None:
    common = "evaluate", images, "--resamples", 20, "--output"
    assert call(*common, tmp_path / "both", *engines).code == 3
    assert call(*common, tmp_path / "one", *engines[:2]).code == 3
    ran = call("compare", tmp_path / "one", tmp_path / "both", "--output", tmp_path / "all.csv")
    assert (ran.code, ran.stderr) == (0, "")
    first = next(line for line in ran.stdout.splitlines() if "AUC" in line).split()
    names = [f"fusion_{rule}" for rule in Rule]
    assert first == ["AUC", "tiny", "tiny", "(2)", "soft_or", *names]
    of = {name: [row for row in read(tmp_path / "all.csv") if row["detector"] == name] for name in ("tiny", "tiny (2)")}
    assert [{**row, "detector": ""} for row in of["tiny"]] == [{**row, "detector": ""} for row in of["tiny (2)"]]
    assert of["tiny"]


def test_a_threshold_is_for_fused_scores(call: Run, engines: list[object], images: Path, tmp_path: Path) -> None:
    ran = call("evaluate", images, *engines, "--output", tmp_path / "o", "--resamples", 5, "--threshold", 0.9)
    own = json.loads((Path(str(engines[1])) / "detector.json").read_text())["threshold"]
    found = {name: report["threshold"] for name, report in reports(tmp_path / "o").items()}
    assert [found[name] for name in NAMES] == [own, own]
    assert found["fusion_lse"] == {"value": 0.9, "source": "given by the user"}
    assert ran.stdout.splitlines()[-1] == "fusion: threshold 0.9: given by the user"
    assert next(line for line in ran.stdout.splitlines() if line.strip().startswith("fusion_lse"))


def test_errors_are_one_sentence(call: Run, engines: list[object], images: Path, tmp_path: Path) -> None:
    def said(*words: object) -> str:
        ran = call("evaluate", images, *engines, "--output", tmp_path / "o", *words)
        assert (ran.code, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
        assert not (tmp_path / "o").exists()
        return ran.stderr

    assert "--calibrate is for one --engine: calibrate one after the other" in said("--calibrate", "platt")
    path = Path(str(engines[1])) / "detector.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "positive": "edited"}))
    assert "tiny calls images edited, and soft_or ai: their scores cannot be fused" in said()


def test_what_disagreement_counts() -> None:
    """By hand: rows are real, real, AI-generated, AI-generated, and one that the second could not score."""
    first = table_of([("camera", 0, [0.2, 0.7]), ("gan", 1, [0.9, 0.6, 0.8])])
    second = table_of([("camera", 0, [0.3, 0.4]), ("gan", 1, [0.1, 0.2, float("nan")])])
    half = Threshold(0.5, "test")
    found = Disagreement.between(Verdicts("a", first, half), Verdicts("b", second, half), 50, 0)
    assert (found.first, found.second, found.images) == ("a", "b", 4)
    assert found.labels_differ == Interval(0.75, found.labels_differ.low, found.labels_differ.high)
    assert found.first_right_where_second_wrong == Interval(1.0, 1.0, 1.0)  # of the last two, which the second misses
    assert found.second_right_where_first_wrong == Interval(1.0, 1.0, 1.0)  # of the second image
    assert found.spearman == pytest.approx(1 - 6 * (2**2 + 1 + 3**2 + 0) / (4 * 15))  # ranks 1 3 4 2 and 3 4 1 2


def test_what_two_that_agree_on_nothing_leave_undefined() -> None:
    table = table_of([("camera", 0, [0.2, 0.2])])
    blind = table_of([("camera", 0, [float("nan")] * 2)])
    half = Threshold(0.5, "test")
    found = Disagreement.between(Verdicts("a", table, half), Verdicts("b", table, half), 5, 0)
    assert (found.spearman, found.first_right_where_second_wrong) == (None, None)
    found = Disagreement.between(Verdicts("a", table, half), Verdicts("b", blind, half), 5, 0)
    assert (found.images, found.labels_differ) == (0, None)

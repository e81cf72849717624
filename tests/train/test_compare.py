"""spai-train compare: what evaluate found of several detectors, in one table."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from spai_train.commands.compare import Metric
from spai_train.evaluation.metrics import METRICS
from tests.support.commands import Run
from tests.support.images import Write


@pytest.fixture
def evaluated(tiny_detector: Path, photo: Write, tmp_path: Path, call: Run) -> list[Path]:
    """Two detectors on the same images: the second looks at five crops, where the first looks at tiles."""
    lines = ["image,class,split,source"]
    for index in range(12):
        source = ("camera", "gan", "diffusion")[index % 3]
        photo(f"{index}.png", 60, 40 + 3 * index, seed=index)
        lines.append(f"{index}.png,{int(source != 'camera')},test,{source}")
    (tmp_path / "images.csv").write_text("\n".join(lines) + "\n")
    folders = []
    for name, minimum in (("one", 1), ("[red]two", 1000)):
        engine = Path(shutil.copytree(tiny_detector, tmp_path / f"engine {minimum}"))
        manifest = json.loads((engine / "detector.json").read_text())
        views = {**manifest["views"], "minimum": minimum}
        (engine / "detector.json").write_text(json.dumps({**manifest, "name": name, "views": views}))
        folder = tmp_path / f"found {minimum}"
        words = ["evaluate", tmp_path / "images.csv", "--engine", engine, "--output", folder, "--jpeg", 50]
        assert call(*words, "--resamples", 50).code == 0
        folders.append(folder)
    return folders


def report(folder: Path) -> Any:
    return json.loads((folder / "metrics.json").read_text())


def test_the_table(evaluated: list[Path], call: Run) -> None:
    ran = call("compare", *evaluated)
    assert (ran.code, ran.stderr) == (0, "")
    lines = [line.split() for line in ran.stdout.splitlines() if line.strip() and "─" not in line]
    assert lines[0] == ["AUC", "one", "[red]two"]
    assert [line[0] for line in lines[1:]] == ["mean", "gan", "diffusion"]
    plain = [report(folder)["results"][0] for folder in evaluated]
    assert [lines[1][1], lines[1][4]] == [f"{result['mean']['auc']['value']:.3f}" for result in plain]
    assert lines[1][1] != lines[1][4]


def test_all_numbers_in_a_file(evaluated: list[Path], call: Run, tmp_path: Path) -> None:
    assert call("compare", *evaluated, "--metric", "accuracy", "--output", tmp_path / "all.csv").code == 0
    with (tmp_path / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 3 * len(METRICS), "detectors, as they are and as JPEG, two generators and the mean"
    for row in rows:
        folder = evaluated[["one", "[red]two"].index(row["detector"])]
        (result,) = [one for one in report(folder)["results"] if one["perturbation"] == row["perturbation"]]
        sources = {one["source"]: one.get("metrics") for one in result["sources"]} | {"mean": result["mean"]}
        wanted = sources[row["source"]][row["metric"]]
        assert [float(row[name]) for name in ("value", "low", "high")] == [*wanted.values()]


def test_the_option_names_all_metrics() -> None:
    assert [*Metric] == [*METRICS]


def test_the_same_detector_twice(evaluated: list[Path], call: Run) -> None:
    ran = call("compare", evaluated[0], evaluated[0] / "metrics.json")
    assert ran.code == 0
    assert "one (2)" in ran.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tables": {"images.csv": "0" * 64}}, "was measured on other images, or by another protocol, than"),
        ({"split": "val"}, "was measured on other images"),
        ({"resize_to": 512}, "was measured on other images"),
        ({"results": []}, "is not what evaluate writes"),
        ({"results": None}, "is not what evaluate writes"),
    ],
)
def test_what_cannot_be_compared(evaluated: list[Path], call: Run, change: dict[str, object], said: str) -> None:
    path = evaluated[1] / "metrics.json"
    path.write_text(json.dumps({**report(evaluated[1]), **change}))
    ran = call("compare", *evaluated)
    assert (ran.code, ran.stdout) == (2, "")
    assert said in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_a_folder_that_evaluate_did_not_write(tmp_path: Path, call: Run) -> None:
    ran = call("compare", tmp_path)
    assert ran.code == 2
    said = "metrics.json: No such file or directory; name folders that `spai-train evaluate` wrote\n"
    assert ran.stderr.endswith(said)

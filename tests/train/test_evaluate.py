"""spai-train evaluate, from tables of images to files and a calibrated detector."""

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from spai_runtime.calibration import Platt
from spai_runtime.cli.commands import execute
from spai_runtime.detector import Detector
from spai_runtime.images import Picture
from spai_runtime.manifest import Threshold
from spai_train.commands import evaluate
from spai_train.data.pack import pack
from spai_train.data.perturb import Kind, Perturbation
from spai_train.data.stores import open_store
from spai_train.data.table import Row, read_table
from spai_train.evaluation.calibration import Calibrated
from spai_train.evaluation.pictures import PerturbedPicture
from spai_train.evaluation.scored import score_rows
from tests.support.boundary import HEAVY, python
from tests.support.commands import Ran, Run
from tests.support.images import Write

Evaluate = Callable[..., Ran]
IMAGES = 6  # of a class


@pytest.fixture
def run_evaluate(capfd: pytest.CaptureFixture[str]) -> Evaluate:
    """spai-train evaluate in this process."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    app.command("evaluate", epilog=evaluate.EPILOG)(evaluate.run)

    def call(*arguments: object) -> Ran:
        capfd.readouterr()
        code = execute(app, "spai-train", ["evaluate", *map(str, arguments)])
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


@pytest.fixture
def engine(tiny_detector: Path, tmp_path: Path) -> Path:
    """An exported directory to write into."""
    return Path(shutil.copytree(tiny_detector, tmp_path / "engine"))


def write_csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def tables(tmp_path: Path, photo: Write) -> list[Path]:
    """A real source and two generators, upstream's way: a CSV each, beside their images; one image is broken."""
    written: list[Path] = []
    for source, label in (("camera", 0), ("gan", 1), ("diffusion", 1)):
        lines = ["image,class,split"]
        for index in range(IMAGES):
            form = "jpg" if source == "camera" else "png"
            photo(f"{source}/{index}.{form}", 40 + 20 * index, 60, seed=10 * len(written) + index)
            lines.append(f"{source}/{index}.{form},{label},test")
        lines.append(f"{source}/never.png,{label},train")
        written.append(write_csv(tmp_path / f"{source}.csv", *lines))
    (tmp_path / "gan" / "3.png").write_bytes(b"broken")
    return written


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def scores_of(rows: Sequence[dict[str, str]], **wanted: str) -> list[float]:
    return [float(row["score"]) for row in rows if row["score"] and wanted.items() <= row.items()]


def test_every_file_of_an_evaluation(run_evaluate: Evaluate, tables: list[Path], engine: Path, tmp_path: Path) -> None:
    output = tmp_path / "deep" / "out"
    ran = run_evaluate(*tables, "--output", output, "--engine", engine, "--device", "cpu", "--resamples", 50)
    assert ran.code == 3
    assert ran.stderr == "spai-train: 1 of 18 images could not be scored; scores.csv says why\n"
    files = ["histogram.png", "metrics.csv", "metrics.json", "report.html", "roc.png", "scores.csv"]
    assert sorted(path.name for path in output.iterdir()) == files

    rows = read(output / "scores.csv")
    assert list(rows[0]) == ["image", "class", "split", "source", "score", "logit", "label", "error"]
    assert [row["image"] for row in rows] == [row.name for path in tables for row in read_table(path, "test")]
    broken = next(row for row in rows if row["error"])
    assert (broken["image"], broken["source"], broken["score"], broken["label"]) == ("gan/3.png", "gan", "", "")
    assert "not an image" in broken["error"]
    with Detector.load(engine, device="cpu") as detector:
        alone = detector.score(tmp_path / "diffusion" / "2.png")
    row = next(row for row in rows if row["image"] == "diffusion/2.png")
    assert float(row["score"]) == pytest.approx(alone.score, abs=1e-6)
    assert row["label"] == alone.label

    report = json.loads((output / "metrics.json").read_text())
    manifest = json.loads((engine / "detector.json").read_text())
    (artifact,) = manifest["artifacts"]
    assert report["detector"]["sha256"] == {
        artifact[graph]["file"]: artifact[graph]["sha256"] for graph in ("encoder", "head")
    }
    assert report["threshold"] == manifest["threshold"]
    assert (report["protocol"]["name"], report["split"], report["seed"], report["resamples"]) == (
        "pooled",
        "test",
        0,
        50,
    )
    (result,) = report["results"]
    camera, gan, diffusion = result["sources"]
    assert [camera["source"], gan["source"], diffusion["source"]] == ["camera", "gan", "diffusion"]
    assert (gan["images"], gan["errors"], gan["against"]) == (IMAGES, 1, [["camera"]])
    assert "metrics" not in camera
    real, generated = scores_of(rows, source="camera"), scores_of(rows, source="gan")
    labels = np.repeat((0, 1), (len(real), len(generated)))
    both = [*real, *generated]
    assert gan["metrics"]["auc"]["value"] == pytest.approx(roc_auc_score(labels, both), abs=1e-12)
    assert gan["metrics"]["average_precision"]["value"] == pytest.approx(
        average_precision_score(labels, both), abs=1e-12
    )
    assert camera["labelled_ai"]["value"] == np.mean(np.array(real) > report["threshold"]["value"])
    mean = np.mean([source["metrics"]["auc"]["value"] for source in (gan, diffusion)])
    assert result["mean"]["auc"]["value"] == pytest.approx(mean, abs=1e-12)

    lines = read(output / "metrics.csv")
    assert [line["source"] for line in lines] == ["camera", "gan", "diffusion", "mean"]
    assert (lines[0]["auc"], lines[1]["against"], lines[3]["labelled_ai"]) == ("", "camera", "")
    for end, key in (("", "value"), ("_low", "low"), ("_high", "high")):
        assert float(lines[1][f"auc{end}"]) == gan["metrics"]["auc"][key]
        assert float(lines[0][f"labelled_ai{end}"]) == camera["labelled_ai"][key]


def test_the_table_on_stdout(run_evaluate: Evaluate, tables: list[Path], engine: Path, tmp_path: Path) -> None:
    ran = run_evaluate(*tables, "--output", tmp_path / "o", "--engine", engine, "--threshold", 0.25, "--resamples", 20)
    report = json.loads((tmp_path / "o" / "metrics.json").read_text())
    mean = report["results"][0]["mean"]["auc"]
    line = next(line for line in ran.stdout.splitlines() if line.startswith(" mean"))
    assert f"{mean['value']:.3f} [{mean['low']:.3f}, {mean['high']:.3f}]" in line
    assert "\x1b" not in ran.stdout
    assert ran.stdout.splitlines()[-1] == "threshold 0.25: given by the user"
    assert report["threshold"] == {"value": 0.25, "source": "given by the user"}


def test_a_checkpoint_scores_as_its_export_does(
    run_evaluate: Evaluate, tables: list[Path], engine: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    common = *tables, "--resamples", 10, "--device", "cpu", "--output"
    assert run_evaluate(*common, tmp_path / "a", "--engine", engine).code == 3
    assert run_evaluate(*common, tmp_path / "b", "--ckpt", tiny_checkpoint).code == 3
    exported, ours = (read(tmp_path / name / "scores.csv") for name in "ab")
    assert scores_of(ours) == pytest.approx(scores_of(exported), abs=1e-5)
    assert list(json.loads((tmp_path / "b" / "metrics.json").read_text())["detector"]["sha256"]) == [
        tiny_checkpoint.name
    ]


def test_grips_table_and_a_root(run_evaluate: Evaluate, tables: list[Path], engine: Path, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    lines = [f"camera/{index}.jpg,real" for index in range(3)] + [f"diffusion/{index}.png,glide" for index in range(3)]
    table = write_csv(tmp_path / "lists" / "grip.csv", "filename,typ", *lines)
    ran = run_evaluate(
        table, "--root", tables[0].parent, "--engine", engine, "--output", tmp_path / "o", "--resamples", 10
    )
    assert (ran.code, ran.stderr) == (0, "")
    (result,) = json.loads((tmp_path / "o" / "metrics.json").read_text())["results"]
    assert [(source["source"], source["class"]) for source in result["sources"]] == [("real", 0), ("glide", 1)]
    assert result["sources"][1]["against"] == [["real"]]


def test_without_torch(tables: list[Path], engine: Path, tmp_path: Path) -> None:
    blocked = tuple(name for name in HEAVY if name not in ("sklearn", "spai_train"))
    code = """
import sys, typer
from spai_runtime.cli.commands import execute
from spai_train.commands import evaluate
app = typer.Typer()
app.command()(evaluate.run)
print(execute(app, "evaluate", sys.argv[1:]))
assert not Block.asked, Block.asked
"""
    arguments = *tables, "--output", tmp_path / "o", "--engine", engine, "--resamples", 10, "--jpeg", 80
    assert python(code, *arguments, "--calibrate", "fpr=0.6", blocked=blocked).splitlines()[-1] == "3"
    assert "torch" in blocked


def test_help_without_the_extra() -> None:
    code = """
import sys, typer
from spai_runtime.cli.commands import execute
from spai_train.commands import evaluate
app = typer.Typer()
app.command()(evaluate.run)
execute(app, "evaluate", sys.argv[1:])
"""
    blocked = (*(name for name in HEAVY if name != "spai_train"), "matplotlib")
    assert "--calibrate" in python(code, "--help", blocked=blocked)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone(run_evaluate: Evaluate, tables: list[Path], engine: Path, tmp_path: Path, label: int) -> None:
    output = tmp_path / "o"
    ran = run_evaluate(tables[2 * label], "--output", output, "--engine", engine, "--resamples", 10)
    assert ran.code == 0
    assert (
        ran.stderr == "spai-train: AUC and the other metrics need scored images of both classes, so they are left out\n"
    )
    assert sorted(path.name for path in output.iterdir()) == [
        "histogram.png", "metrics.csv", "metrics.json", "report.html", "scores.csv",
    ]  # fmt: skip
    assert len(scores_of(read(output / "scores.csv"))) == IMAGES
    (result,) = json.loads((output / "metrics.json").read_text())["results"]
    assert result["mean"] == {}
    assert result["sources"][0]["labelled_ai"]["value"] == np.mean(
        [row["label"] == "ai" for row in read(output / "scores.csv")]
    )


def test_perturbed_images(run_evaluate: Evaluate, tables: list[Path], engine: Path, tmp_path: Path) -> None:
    """Scores under a perturbation are those of images that were perturbed before they were written."""
    output = tmp_path / "o"
    levels = "--jpeg", 85, "--jpeg", 40, "--blur", 3, "--noise", 5, "--scale", 0.5
    ran = run_evaluate(*tables, "--output", output, "--engine", engine, "--resamples", 10, *levels)
    assert ran.stderr == "spai-train: 6 of 108 images could not be scored; scores.csv says why\n"
    rows = read(output / "scores.csv")
    names = ["none", "jpeg 85", "jpeg 40", "blur 3", "noise 5", "scale 0.5"]
    assert list(dict.fromkeys(row["perturbation"] for row in rows)) == names
    with Detector.load(engine, device="cpu") as detector:
        image = np.asarray(Image.open(tmp_path / "diffusion" / "4.png"))
        for perturbation in (Perturbation(Kind.JPEG, 40), Perturbation(Kind.SCALE, 0.5)):
            (score,) = scores_of(rows, image="diffusion/4.png", perturbation=str(perturbation))
            assert score == pytest.approx(detector.score(perturbation.apply(image)).score, abs=1e-6)
    points = read(output / "robustness.csv")
    assert [(point["perturbation"], point["level"]) for point in points] == [
        ("none", ""), ("jpeg", "85"), ("jpeg", "40"), ("blur", "3"), ("noise", "5"), ("scale", "0.5"),
    ]  # fmt: skip
    results = json.loads((output / "metrics.json").read_text())["results"]
    for point, result in zip(points, results, strict=True):
        assert float(point["auc"]) == result["mean"]["auc"]["value"]
        assert float(point["balanced_accuracy_high"]) == result["mean"]["balanced_accuracy"]["high"]
    assert (output / "robustness.png").is_file()
    assert [line["perturbation"] for line in read(output / "metrics.csv")][::4] == names


def test_noise_is_each_images_own_and_follows_from_the_seed(tiny_detector: Path, tables: list[Path]) -> None:
    rows = read_table(tables[2], "test")

    def noisy(rows: Sequence[Row], seed: int) -> dict[str, float]:
        with Detector.load(tiny_detector, device="cpu") as detector:
            (table,) = score_rows([detector], rows, Perturbation(Kind.NOISE, 40), seed=seed)
        return dict(zip((row.name for row in rows), table.logit.tolist(), strict=True))

    first, other = noisy(rows, 1), noisy(rows, 2)
    assert noisy(rows[::-1], 1) == pytest.approx(first, abs=1e-5)
    assert min(abs(first[name] - other[name]) for name in first) > 1e-4


@pytest.mark.parametrize("size", [(40, 50), (7, 3)])
def test_a_perturbed_picture_foretells_its_size_and_memory(photo: Write, size: tuple[int, int]) -> None:
    path = photo("a.png", *size)
    picture = PerturbedPicture(Picture.open(path), Perturbation(Kind.SCALE, 0.3), seed=0)
    foretold = picture.width, picture.height
    assert foretold == (max(1, int(size[1] * 0.3)), max(1, int(size[0] * 0.3)))
    assert picture.decoding_nbytes >= 4 * size[0] * size[1] + 4 * foretold[0] * foretold[1]
    assert picture.load().array().shape == (foretold[1], foretold[0], 3)
    assert picture.decoding_nbytes == picture.nbytes == 4 * foretold[0] * foretold[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name what to evaluate: --ckpt CHECKPOINT, or --engine DIRECTORY that spai-export wrote"),
        (("--ckpt", "a", "--engine", "b"), "name what to evaluate"),
        (
            ("--ckpt", "a", "--calibrate", "platt"),
            "--calibrate writes into an exported directory: export the checkpoint",
        ),
        (("--engine", "e", "--calibrate", "platt", "--threshold", 0.5), "--calibrate finds the threshold: leave"),
        (
            ("--engine", "e", "--calibrate", "curve"),
            "--calibrate takes platt, isotonic or fpr=RATE, 0 < RATE < 1; curve",
        ),
        (
            ("--engine", "e", "--calibrate", "platt", "--ten-crop", "mean"),
            "--calibrate is for images as the detector looks",
        ),
        (("--engine", "e", "--calibrate", "platt", "--resize-to", 50), "--calibrate is for images as the"),
        (("--engine", "e", "--jpeg", 0), "jpeg 0 is not a perturbation: the level is"),
        (
            ("--engine", "e", "--root", "nowhere"),
            "none of the 6 images of camera.csv is there, nowhere/camera/0.jpg for",
        ),
        (("--engine", "e", "--split", "val"), "camera.csv has no row in the split val; it has: test, train"),
        (("--engine", "nowhere"), "there is no nowhere"),
    ],
)
def test_errors_are_one_sentence(
    run_evaluate: Evaluate,
    tables: list[Path],
    engine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: Sequence[object],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    engine.rename("e")
    before = Path("e/detector.json").read_bytes()
    ran = run_evaluate(tables[0].name, "--output", "o", *arguments)
    assert (ran.code, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert ran.stderr.startswith(f"spai-train: {message}")
    assert not Path("o").exists()
    assert Path("e/detector.json").read_bytes() == before


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("fpr=0.01", "1% false positives need 619 lossy real images to be told from luck, and "),
        ("isotonic", "--calibrate isotonic needs scored images of both classes, and"),
    ],
)
def test_too_few_images_leave_the_calibration_out_and_nothing_else(
    run_evaluate: Evaluate, tables: list[Path], engine: Path, tmp_path: Path, wanted: str, message: str
) -> None:
    before = (engine / "detector.json").read_bytes()
    common = (tables[0], "--engine", engine, "--resamples", 2)
    plain = run_evaluate(*common, "--output", tmp_path / "plain")
    ran = run_evaluate(*common, "--output", tmp_path / "o", "--calibrate", wanted)
    assert (plain.code, ran.code, ran.stdout) == (0, 3, plain.stdout)
    (line,) = set(ran.stderr.splitlines()) - set(plain.stderr.splitlines())
    assert line.startswith("spai-train: not calibrated, detector.json is as it was: ")
    assert message in line
    assert (tmp_path / "o" / "scores.csv").read_bytes() == (tmp_path / "plain" / "scores.csv").read_bytes()
    assert (tmp_path / "o" / "metrics.json").is_file()
    assert (engine / "detector.json").read_bytes() == before


def test_an_output_that_cannot_be_written(
    run_evaluate: Evaluate, tables: list[Path], engine: Path, tmp_path: Path
) -> None:
    (tmp_path / "o").touch()
    ran = run_evaluate(*tables, "--engine", engine, "--output", tmp_path / "o", "--resamples", 2)
    assert (ran.code, ran.stderr) == (2, f"spai-train: cannot write {tmp_path / 'o'}: File exists\n")


def separable(run: Run, engine: Path, folder: Path, count: int) -> Path:
    """A table of images whose classes differ in brightness, the brighter ones real if the detector says so."""
    (folder / "set").mkdir()
    names = [f"set/{index}.png" for index in range(count)]
    for index, name in enumerate(names):
        rng = np.random.default_rng(index)
        noise = rng.integers(0, 60, (32, 32, 3)) + rng.integers(0, 120)
        Image.fromarray((noise + 40 * (index % 2)).astype(np.uint8)).save(folder / name)
    table = write_csv(folder / "set.csv", "image", *names)
    logits = [float(row["logit"]) for row in csv.DictReader(run(table, "--engine", engine).stdout.splitlines())]
    brighter = int(np.mean(logits[1::2]) > np.mean(logits[::2]))
    return write_csv(
        table, "image,class", *(f"{name},{int(index % 2 == brighter)}" for index, name in enumerate(names))
    )


@pytest.mark.parametrize("curve", ["platt", "isotonic"])
def test_a_calibrated_detector_runs_calibrated(
    run_evaluate: Evaluate, run: Run, engine: Path, tmp_path: Path, curve: str
) -> None:
    table, scores = separable(run, engine, tmp_path, 60), tmp_path / "scores.csv"
    assert run(table, "--engine", engine, "--output", scores).code == 0
    before = read(scores)
    common = table, "--engine", engine, "--resamples", 10, "--output", tmp_path / "o"
    ran = run_evaluate(*common, "--calibrate", curve, "--calibrate", "fpr=0.2")
    fair, finds, *warned = ran.stderr.splitlines()
    assert ran.code == 0
    assert fair.endswith("another split would be a fair test")
    manifest: dict[str, Any] = json.loads((engine / "detector.json").read_text())
    assert manifest["calibration"]["method"] == curve
    assert manifest["calibration"]["source"].endswith("on 30 real and 30 AI-generated images of set.csv")
    assert manifest["threshold"]["source"].startswith("calibrated to at most 20% false positives on 30 lossless real")

    assert run(table, "--engine", engine, "--output", scores, "--resume").code == 0
    rows, evaluated = read(scores), read(tmp_path / "o" / "scores.csv")
    assert [row["logit"] for row in rows] == [row["logit"] for row in before]
    assert [row["score"] for row in rows] != [row["score"] for row in before]
    assert [(row["score"], row["label"]) for row in rows] == [(row["score"], row["label"]) for row in evaluated]
    for row in rows:
        assert float(row["score"]) == pytest.approx(calibrated(manifest["calibration"], float(row["logit"])), rel=1e-7)
        assert row["label"] == ("ai" if float(row["score"]) > manifest["threshold"]["value"] else "real")
    false_positives = [row["label"] == "ai" for row in rows if row["class"] == "0"]
    assert np.mean(false_positives) <= 0.2
    found = np.mean([row["label"] == "ai" for row in rows if row["class"] == "1"])
    assert finds.endswith(f" finds {found:.1%} of the AI-generated images that it was calibrated on")
    assert [line.split(" is so high ")[-1][:28] for line in warned] == ["that it finds almost nothing"] * int(
        found < 0.1
    )
    record = json.loads((tmp_path / "scores.csv.run.json").read_text())
    assert record["run"]["calibration"] == manifest["calibration"]


def calibrated(calibration: dict[str, Any], logit: float) -> float:
    """As the manifest's documentation has it."""
    if calibration["method"] == "platt":
        return float(1 / (1 + np.exp(-calibration["a"] * logit - calibration["b"])))
    return float(np.interp(logit, calibration["logits"], calibration["scores"]))


def test_a_changed_calibration_alone_starts_a_resumed_run_over(
    run: Run, engine: Path, photo: Write, tmp_path: Path
) -> None:
    arguments = photo("a.png", 40, 40), "--engine", engine, "--output", tmp_path / "s.csv", "--resume"
    scores = []
    for offset in (0.0, 1.0, 1.0):
        platt = Platt(1.0, offset, "test")
        Calibrated(platt, Threshold(0.5, "test")).write(engine)
        assert run(*arguments).code == 0
        (row,) = read(tmp_path / "s.csv")
        scores.append(float(row["score"]))
        assert scores[-1] == pytest.approx(platt.apply(float(row["logit"])), rel=1e-7)
    assert scores[0] < scores[1] == scores[2]


def test_a_curve_alone_puts_the_threshold_at_even_odds(
    run_evaluate: Evaluate, run: Run, engine: Path, tmp_path: Path
) -> None:
    table = separable(run, engine, tmp_path, 40)
    run_evaluate(
        table, "--engine", engine / "encoder.onnx", "--resamples", 5, "--output", tmp_path / "o", "--calibrate", "platt"
    )
    threshold = json.loads((engine / "detector.json").read_text())["threshold"]
    assert threshold["value"] == 0.5
    assert threshold["source"].startswith("where both classes are equally likely, in the balance of 20 real and 20 AI")
    assert not list(engine.glob("*.partial"))


def test_images_of_a_store_score_as_their_files_do(
    run_evaluate: Evaluate, tables: list[Path], engine: Path, tmp_path: Path
) -> None:
    arguments = [*tables, "--engine", engine, "--device", "cpu", "--resamples", 5]
    run_evaluate(*arguments, "--output", tmp_path / "files")
    rows = [row for path in tables for row in read_table(path, "test")]
    pack(rows, open_store(None), tmp_path / "data.lmdb")
    for folder in ("camera", "gan", "diffusion"):
        shutil.rmtree(tmp_path / folder)
    assert run_evaluate(*arguments, "--store", tmp_path / "data.lmdb", "--output", tmp_path / "store").code == 3
    scores = [(tmp_path / name / "scores.csv").read_text().splitlines() for name in ("files", "store")]
    assert [line.rpartition(",")[0] for line in scores[0]] == [line.rpartition(",")[0] for line in scores[1]]

"""Published figures, and evaluate --against: both columns on toy trees."""

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from sklearn.metrics import average_precision_score

from spai_runtime.detector import Detector
from spai_runtime.errors import UserError
from spai_train.data import Image
from spai_train.data.perturb import Kind, Perturbation
from spai_train.evaluation.benchmark import NAMES as BENCHMARKS
from spai_train.evaluation.benchmark import load
from spai_train.evaluation.metrics import METRICS
from spai_train.evaluation.published_table import MEAN, NAMES, Wanted
from spai_train.zoo import ZOO
from tests.support.commands import Run
from tests.support.images import Write, pixels
from tests.train.test_benchmarks import SPAI, SYNTHBUSTER

COMMERCIAL = ["dalle2", "dalle3", "firefly", "midjourney-v5"]


@pytest.fixture
def named(tiny_detector: Path, tmp_path: Path) -> Callable[[str], Path]:
    """An exported directory whose detector has a name, and a method of another name."""

    def make(name: str) -> Path:
        engine = Path(shutil.copytree(tiny_detector, tmp_path / "engines" / name))
        manifest = json.loads((engine / "detector.json").read_text())
        changed = {**manifest, "name": name, "detector": name.partition("-")[0]}
        (engine / "detector.json").write_text(json.dumps(changed))
        return engine

    return make


def figures(name: str, row: str, metric: str) -> dict[str, float]:
    return Wanted.parse(name).table.values[metric][row]


@pytest.mark.parametrize("name", NAMES)
def test_every_table(name: str) -> None:
    """It says where it is from, and each mean is that of its figures, to the digits that are printed."""
    table = Wanted.parse(name).table
    assert "arXiv:" in table.source and table.read_in and re.fullmatch(r"\d{4}-\d\d-\d\d", table.date)
    assert set(table.values) <= set(METRICS)
    assert table.benchmark in ("", *BENCHMARKS)
    for rows in table.values.values():
        for row, cells in rows.items():
            assert set(cells) == {*table.generators(row), MEAN}
            own = [value for generator, value in cells.items() if generator != MEAN]
            assert 0 <= min(own) <= max(own) <= 100
            assert cells[MEAN] == pytest.approx(np.mean(own), abs=0.0551)
    assert set(table.aliases) <= set(table.generators(table.rows[0]))
    assert set(table.names) <= set(table.rows)
    for row in table.rows:
        assert [table.row_called(name) for name in (row, row.upper(), table.names.get(row, row))] == [row] * 3


@pytest.mark.parametrize("name", [name for name in NAMES if Wanted.parse(name).table.benchmark])
def test_generators_are_called_as_the_benchmark_calls_them(name: str) -> None:
    table = Wanted.parse(name).table
    of_tables = {"spai": [f"fake_{one}" for one in SPAI], "commercial-tools": COMMERCIAL}  # CSVs name them
    sources = of_tables.get(table.benchmark) or [*load(table.benchmark).generated]
    for row in table.rows:
        found = [[one for one in sources if table.is_called(generator, one)] for generator in table.generators(row)]
        assert sorted(source for one in found for source in one) == sorted(sources)


def test_the_zoo_reports_the_same() -> None:
    for name in ("rine-1class", "rine-2class", "rine-4class"):
        (reported,) = ZOO[name].reported
        means = [f"{figures('rine', name, metric)[MEAN]:.1f}" for metric in ("accuracy", "average_precision")]
        assert reported.figures.startswith(f"accuracy {means[0]}%, AP {means[1]}%")
    (reported,) = ZOO["rine-ldm"].reported
    means = [
        f"{figures('rine-synthbuster', 'rine-ldm', metric)[MEAN]:.1f}" for metric in ("accuracy", "average_precision")
    ]
    assert reported.figures.startswith(f"accuracy {means[0]}%, AP {means[1]}%")
    (reported,) = ZOO["dda"].reported
    dda = figures("dda", "dda", "balanced_accuracy")
    assert (
        reported.figures == f"accuracy {dda[MEAN]}%, mean over 11 benchmarks; {min(dda.values())}% on the worst of them"
    )


def test_figures_of_the_sources() -> None:
    """One cell of each, as the source prints it."""
    assert figures("spai", "spai", "auc")["SD3"] == 75.9
    assert figures("spai", "npr", "auc")["DALLE3"] == 97.1
    assert figures("clipdet", "clipdet-latent10k-plus", "auc")["midjourney-v5"] == 81.7
    assert figures("community-forensics", "community-forensics", "average_precision")["Pix. Diff."] == 94.7
    assert figures("community-forensics-benchmarks", "ours-high-res", "average_precision")["Synthbuster"] == 97.4
    assert figures("rine", "rine-4class", "accuracy")["san"] == 68.26
    assert figures("rine-synthbuster", "rine-ldm", "average_precision")["dalle3"] == 32.48
    assert figures("cospy-bench", "cospy-sd-v1-4", "accuracy")["sbu/stable-diffusion-xl-base-1.0"] == 67.33
    assert figures("cospy-aigcdetect", "cospy-progan", "average_precision")["VQDM"] == 91.96
    assert figures("dda", "univfd", "balanced_accuracy")["EvalGEN"] == 15.4


def synthbuster(photo: Write, root: str, generators: list[str]) -> None:
    for number, name in enumerate(["RAISEpng", *(f"synthbuster/{one}" for one in generators)]):
        for index in range(4):
            photo(f"{root}/{name}/{index}.png", 40, 50, seed=10 * number + index)


def test_both_columns(call: Run, named: Callable[[str], Path], photo: Write, tmp_path: Path) -> None:
    """All generators are there, so that the mean stands beside the published one."""
    synthbuster(photo, "data", SYNTHBUSTER)
    common = "--benchmark", "synthbuster", "--against", "rine-synthbuster", "--resamples", 20
    ran = call("evaluate", tmp_path / "data", "--engine", named("rine-ldm"), *common, "--output", tmp_path / "o")
    assert ran.code == 0
    assert ran.stderr == (
        "spai-train: synthbuster is reported in average_precision and accuracy\n"
        "spai-train: synthbuster: RINE's figures are of ten crops: --ten-crop mean\n"
    )
    report = json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert report["threshold"] == {"value": 0.5, "source": "the protocol of the benchmark synthbuster"}
    assert (report["published"]["row"], report["published"]["only_published"], report["published"]["only_here"]) == (
        "rine-ldm",
        [],
        [],
    )
    with (tmp_path / "o" / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "o" / "published.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["generator"] for line in lines if line["metric"] == "accuracy"] == [
        *Wanted.parse("rine-synthbuster").table.generators("rine-ldm"),
        MEAN,
    ]
    (dalle3,) = [line for line in lines if (line["metric"], line["generator"]) == ("average_precision", "dalle3")]
    known = [row for row in rows if row["source"] in ("dalle3", "raise")]
    expected = average_precision_score([int(row["class"]) for row in known], [float(row["score"]) for row in known])
    assert float(dalle3["here"]) == pytest.approx(expected, abs=1e-12)
    assert float(dalle3["published"]) == 0.3248
    assert float(dalle3["difference"]) == pytest.approx(expected - 0.3248, abs=1e-12)
    shown = next(line for line in ran.stdout.splitlines() if "dalle3" in line and " AP " in line)
    interval = f"{expected:.3f} [{float(dalle3['here_low']):.3f}, {float(dalle3['here_high']):.3f}]"
    assert shown.split("AP")[1].split() == ["0.325", *interval.split(), f"{expected - 0.3248:+.3f}"]
    mean = next(line for line in lines if (line["metric"], line["generator"]) == ("accuracy", MEAN))
    assert float(mean["here"]) == report["results"][0]["mean"]["accuracy"]["value"]
    assert "published: row rine-ldm of rine-synthbuster: RINE, trained on latent diffusion" in ran.stdout


def test_what_one_of_both_lacks(call: Run, named: Callable[[str], Path], photo: Write, tmp_path: Path) -> None:
    """Tables of one's own: names match whatever their case, and the mean of other generators is not shown."""
    lines = ["image,class,source"]
    for index in range(8):
        source = ("camera", "GLIDE", "midjourney-v5", "mine")[index % 4]
        photo(f"{index}.png", 40, 50, seed=index)
        lines.append(f"{index}.png,{int(source != 'camera')},{source}")
    (tmp_path / "own.csv").write_text("\n".join(lines) + "\n")
    command = "evaluate", tmp_path / "own.csv", "--against", "spai", "--resamples", 10, "--output", tmp_path / "o"
    ran = call(*command, "--engine", named("spai"), "--engine", named("clipdet"))
    assert (ran.code, ran.stderr.count("\n")) == (0, 1)
    assert "the figures of spai are of the benchmark spai, whose protocol --benchmark spai follows" in ran.stderr
    published: dict[str, Any] = json.loads((tmp_path / "o" / "metrics.json").read_text())["published"]
    assert [*published] == ["spai"], "the table has no row of ClipDet"
    assert [one["generator"] for one in published["spai"]["figures"]] == ["Glide", "MJv5"]
    assert [one["published"] for one in published["spai"]["figures"]] == [0.902, 0.945]
    assert published["spai"]["only_here"] == ["mine"]
    assert "Flux" in published["spai"]["only_published"] and len(published["spai"]["only_published"]) == 11
    assert "published, without images here: SD1.3, SD1.4, Flux" in ran.stdout
    assert "images here, not published: mine" in ran.stdout


def test_a_figure_of_a_whole_benchmark(call: Run, named: Callable[[str], Path], photo: Write, tmp_path: Path) -> None:
    synthbuster(photo, "data", ["glide", "firefly"])
    common = "--benchmark", "synthbuster", "--against", "dda", "--resamples", 10, "--output", tmp_path / "o"
    assert call("evaluate", tmp_path / "data", "--engine", named("dda"), *common).code == 0
    report = json.loads((tmp_path / "o" / "metrics.json").read_text())
    (figure,) = report["published"]["figures"]
    assert (figure["generator"], figure["published"]) == ("Synthbuster", 0.901)
    assert figure["here"] == report["results"][0]["mean"]["balanced_accuracy"]


def score_of(image: Image, detector: Detector) -> Any:
    return pytest.approx(detector.score(image).score, abs=1e-6)


def test_a_benchmark_of_jpegs(call: Run, tiny_detector: Path, photo: Write, tmp_path: Path) -> None:
    """Co-Spy-Bench compresses every image first, and what is asked for beside it acts on the compressed images."""
    real = "data/test/Co-Spy-Bench/real_image_examples/SBU"
    fake = "data/test/Co-Spy-Bench/synthetic/sbu/segmind@tiny-sd"
    for number, folder in enumerate((real, fake)):
        for index in range(2):
            photo(f"{folder}/{index}.png", 40, 50, seed=2 * number + index)
    common = "--benchmark", "co-spy-bench", "--against", "cospy-bench/co-spy", "--resamples", 5, "--blur", 5
    ran = call("evaluate", tmp_path / "data", "--engine", tiny_detector, *common, "--output", tmp_path / "o")
    assert ran.code == 0
    assert "co-spy-bench takes 2000 images of a source, and fewer are there of sbu (2), sbu/tiny-sd (2)\n" in ran.stderr
    assert "co-spy-bench compresses its images first: jpeg 95, all images\n" in ran.stderr
    report = json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert report["preparation"] == "jpeg 95, all images"
    assert [one["perturbation"] for one in report["results"]] == ["none", "blur 5"]
    assert [one["published"] for one in report["published"]["figures"]] == [0.9801, 0.7885]
    with (tmp_path / "o" / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    compressed = [through_jpeg(pixels(40, 50, seed), 95) for seed in range(4)]
    blurred = [Perturbation(Kind.BLUR, 5).apply(image) for image in compressed]
    with Detector.load(tiny_detector, device="cpu") as detector:
        assert [float(row["score"]) for row in rows] == [score_of(image, detector) for image in (*compressed, *blurred)]
        assert abs(detector.score(compressed[3]).score - detector.score(pixels(40, 50, 3)).score) > 1e-5


def test_a_benchmark_where_one_class_alone_becomes_jpegs(
    call: Run, tiny_detector: Path, photo: Write, tmp_path: Path
) -> None:
    """DDA's: scores are those of generated images that were written as JPEGs, and of real ones that were not."""
    for label, kind in enumerate(("nature", "ai")):
        for index in range(2):
            photo(f"data/BigGAN/val/{kind}/{index}.png", 40, 50, seed=2 * label + index)
    common = "--benchmark", "dda-genimage", "--against", "dda/dda", "--resamples", 5, "--output", tmp_path / "o"
    ran = call("evaluate", tmp_path / "data", "--engine", tiny_detector, *common)
    assert ran.code == 0
    assert "dda-genimage compresses its images first: jpeg 96, generated images\n" in ran.stderr
    report = json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert [(one["generator"], one["published"]) for one in report["published"]["figures"]] == [("GenImage", 0.917)]
    with (tmp_path / "o" / "scores.csv").open(newline="") as file:
        found = {row["image"]: float(row["score"]) for row in csv.DictReader(file)}
    with Detector.load(tiny_detector, device="cpu") as detector:
        for seed, (kind, index) in enumerate((kind, index) for kind in ("nature", "ai") for index in range(2)):
            image = pixels(40, 50, seed)
            looked_at = through_jpeg(image, 96) if kind == "ai" else image
            assert found[f"BigGAN/val/{kind}/{index}.png"] == score_of(looked_at, detector)
            assert abs(detector.score(image).score - detector.score(through_jpeg(image, 96)).score) > 1e-5


def through_jpeg(image: Image, quality: int) -> Image:
    """By Pillow and a file."""
    written = io.BytesIO()
    PIL.Image.fromarray(image).save(written, "JPEG", quality=quality)
    return np.asarray(PIL.Image.open(written))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--against", "spay"), "there is no published table spay (is it spai?): there are clipdet, "),
        (("--against", "rine/spai"), "the table rine has no row spai: it has rine-1class, rine-2class, rine-4class"),
        (("--against", "rine"), "the table rine has no row spai: name one of its rows, rine-1class, rine-2class, "),
        (("--benchmark", "synthbuster"), "--benchmark synthbuster takes one folder: a folder with synthbuster/ and "),
        (("--benchmark", "nothing"), "there is no benchmark nothing: there are aigcdetect, "),
    ],
)
def test_errors_are_one_sentence(
    call: Run, tiny_detector: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    (tmp_path / "own.csv").write_text("image,class\na.png,1\n")
    ran = call("evaluate", tmp_path / "own.csv", "--engine", tiny_detector, "--output", tmp_path / "o", *words)
    assert (ran.code, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert ran.stderr.startswith(f"spai-train: {said}")


def test_what_does_not_go_with_a_benchmark(call: Run, tiny_detector: Path, tmp_path: Path) -> None:
    command = "evaluate", tmp_path, "--engine", tiny_detector, "--output", tmp_path / "o", "--benchmark", "synthbuster"
    assert "leave --root and --store out" in call(*command, "--root", tmp_path).stderr
    assert "those of a benchmark are for a test, leave one out" in call(*command, "--calibrate", "platt").stderr


def test_a_row_that_is_asked_for_is_one_detectors() -> None:
    with pytest.raises(UserError, match="--against rine/rine-1class is for one detector: of several, each finds"):
        Wanted.parse("rine/rine-1class").rows_of([("a", "rine"), ("b", "spai")])
    assert Wanted.parse("rine").rows_of([("rine-2class", "rine"), ("b", "spai")]) == ["rine-2class", None]
    assert Wanted.parse("rine-synthbuster").row_of("mine", "rine") == "rine-ldm"


def test_a_detector_finds_its_row_under_its_own_name_whatever_the_source_calls_it() -> None:
    assert Wanted.parse("spai").row_of("corvi2023", "corvi2023") == "corvi2023"
    assert Wanted.parse("spai/DMID").row == Wanted.parse("spai/dmid").row == "corvi2023"
    assert Wanted.parse("spai").table.described("corvi2023") == "corvi2023 (DMID)"
    assert Wanted.parse("clipdet").row_of("clipdet-latent10k-plus", "clipdet") == "clipdet-latent10k-plus"
    assert Wanted.parse("clipdet").row_of("mine", "clipdet") == "clipdet-latent10k-plus"
    assert Wanted.parse("community-forensics").row_of("community-forensics-224", "community-forensics") == (
        "community-forensics"
    )


@pytest.mark.parametrize(
    ("table", "name", "method"),
    [
        ("clipdet", "clipdet-latent10k", "clipdet"),
        ("rine-synthbuster", "rine-4class", "rine"),
        ("cospy-bench", "cospy-progan", "cospy"),
    ],
)
def test_another_published_checkpoint_has_no_row(table: str, name: str, method: str) -> None:
    with pytest.raises(UserError, match=f"the table {table} has no row {name}: name one of its rows, "):
        Wanted.parse(table).row_of(name, method)

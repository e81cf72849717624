"""spai-run end to end: rows, exit codes, and one line where nothing can run."""

import csv
import io
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spai_runtime import Detector
from tests import golden
from tests.support.commands import Run, spawn
from tests.support.images import Write, pixels, write_bad_images, write_odd_images
from tests.support.manifests import edit
from tests.support.users import as_nobody

COLUMNS = ["path", "score", "logit", "label", "width", "height", "views", "error"]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.fixture
def photos(photo: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Three images in the current folder."""
    monkeypatch.chdir(tmp_path)
    for seed, (name, height, width) in enumerate([("p/a.png", 70, 100), ("p/b.jpg", 40, 40), ("p/c/d.webp", 200, 33)]):
        photo(name, height, width, seed=seed)
    return ["p/a.png", "p/b.jpg", "p/c/d.webp"]


def test_a_folder_of_good_images(run: Run, photos: list[str], tiny_detector: Path) -> None:
    ran = run("p", "--engine", tiny_detector)
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[0] == "path,score,logit,label,width,height,views,error"
    found = rows(ran.stdout)
    assert [row["path"] for row in found] == photos
    assert [(row["height"], row["width"], row["views"]) for row in found] == [
        ("70", "100", "6"),
        ("40", "40", "5"),
        ("200", "33", "6"),
    ]
    for row in found:
        assert float(row["score"]) == pytest.approx(1 / (1 + math.exp(-float(row["logit"]))), rel=1e-7)
        assert row["label"] == ("ai" if float(row["score"]) > 0.5 else "real")
    with Detector.load(tiny_detector, device="cpu") as detector:
        assert [float(row["logit"]) for row in found] == [detector.score(path).logit for path in photos]


def test_bad_images_among_odd_ones(run: Run, open_folder: Path, tiny_detector: Path) -> None:
    folder, engine = open_folder / "images", Path(shutil.copytree(tiny_detector, open_folder / "m"))
    folder.mkdir()
    odd = write_odd_images(folder)
    bad = write_bad_images(folder)
    for path in (engine, *engine.iterdir()):
        path.chmod(0o755)
    with as_nobody():
        ran = run(folder, "--engine", engine)
    assert ran.code == 3
    expected = f"spai-run: {len(bad)} of {len(bad) + len(odd)} images could not be scored; the error column says why\n"
    assert ran.stderr == expected
    names = sorted([*odd, *bad])
    found = rows(ran.stdout)
    assert [row["path"] for row in found] == [
        f"{folder}/{name}".encode("utf-8", "backslashreplace").decode() for name in names
    ]
    for name, row in zip(names, found, strict=True):
        assert bad.get(name, "") in row["error"]
        assert bool(row["error"]) == (name in bad)
        assert (row["label"] in ("ai", "real")) == (row["score"] != "") == (name not in bad)
        assert "\n" not in row["error"]
    with Detector.load(tiny_detector, device="cpu") as detector:
        for name, row in zip(names, found, strict=True):
            if name in odd:
                assert float(row["logit"]) == detector.score(folder / name).logit, name


@pytest.mark.parametrize("path", sorted((golden.FOLDER / "images").iterdir()), ids=lambda path: path.stem)
def test_upstreams_logits(run: Run, golden_detector: Path, path: Path, tmp_path: Path) -> None:
    expected, key = np.load(golden.FOLDER / "spai_small_expected.npz"), path.stem.split("_")[1]
    assert run(path, "--engine", golden_detector, "--output", tmp_path / "s.csv").code == 0
    (row,) = rows((tmp_path / "s.csv").read_text())
    assert float(row["logit"]) == pytest.approx(expected[f"{key}/logit"].item(), abs=1e-4)
    assert int(row["views"]) == len(expected[f"{key}/features"])


def test_all_of_upstreams_images_at_once(run: Run, golden_detector: Path) -> None:
    """Views of different images share batches."""
    expected = np.load(golden.FOLDER / "spai_small_expected.npz")
    found = rows(run(golden.FOLDER / "images", "--engine", golden_detector, "--batch-size", 7).stdout)
    logits = [expected[f"{key}/logit"].item() for key in range(8)]
    np.testing.assert_allclose([float(row["logit"]) for row in found], logits, rtol=0, atol=1e-4)


def test_formats_hold_the_same(run: Run, photos: list[str], tiny_detector: Path) -> None:
    Path("p/bad.png").touch()
    options = "p", "--engine", tiny_detector
    from_csv = rows(run(*options, "--format", "csv").stdout)
    from_json = [json.loads(line) for line in run(*options, "--format", "jsonl").stdout.splitlines()]
    assert [list(row) for row in from_json] == [COLUMNS] * 4
    assert [{name: "" if value is None else str(value) for name, value in row.items()} for row in from_json] == from_csv
    table = run(*options, "--format", "table").stdout.splitlines()
    assert [line.split()[-1] for line in table[3:6:2]] == [photos[0], "empty"]
    assert table[4].split()[:3] == [f"{from_json[1]['score']:.4f}", from_json[1]["label"], "40×40"]
    for name in ("s.csv", "s.jsonl"):
        ran = run(*options, "--output", name)
        assert (ran.code, ran.stdout) == (3, "")
        assert Path(name).read_text() == run(*options, "--format", name.split(".")[1]).stdout
    assert from_csv[2]["path"] == "p/bad.png"


def test_the_threshold_is_strict(run: Run, photos: list[str], tiny_detector: Path) -> None:
    def labels(threshold: str) -> list[str]:
        return [row["label"] for row in rows(run(*photos, "--engine", tiny_detector, "--threshold", threshold).stdout)]

    scores = [row["score"] for row in rows(run(*photos, "--engine", tiny_detector).stdout)]
    for written in scores:
        assert labels(written) == ["ai" if float(score) > float(written) else "real" for score in scores]
    assert labels(str(math.nextafter(min(map(float, scores)), 0))) == ["ai"] * 3
    assert labels("0") == ["ai"] * 3
    assert labels("1") == ["real"] * 3


@pytest.mark.parametrize(("column", "other"), [("image", "class"), ("filename", "typ")])
def test_a_csv_keeps_its_columns_in_front(
    run: Run, photos: list[str], tiny_detector: Path, column: str, other: str
) -> None:
    Path("p/t.csv").write_text(f'{other},{column},split,score\n1,a.png,val,"x,y"\n0,b.jpg,test,2\n1,gone.png,test,\n')
    ran = run("p/t.csv", photos[2], "--engine", tiny_detector)
    assert ran.code == 3
    found = rows(ran.stdout)
    assert list(found[0]) == [other, column, "split", "input_score", *COLUMNS]
    assert [(row[other], row[column], row["input_score"], row["path"]) for row in found] == [
        ("1", "a.png", "x,y", "p/a.png"),
        ("0", "b.jpg", "2", "p/b.jpg"),
        ("1", "gone.png", "", "p/gone.png"),
        ("", "", "", "p/c/d.webp"),
    ]
    assert [row["path"] for row in rows(run("p/t.csv", "--engine", tiny_detector, "--split", "test").stdout)] == [
        "p/b.jpg",
        "p/gone.png",
    ]


def test_lists_globs_and_links(run: Run, photos: list[str], tiny_detector: Path) -> None:
    Path("p/list.txt").write_text("c/d.webp\na.png\n")
    Path("p/c/up").symlink_to("..")
    found = rows(run("p/list.txt", "p/*.jpg", "p", "--engine", tiny_detector).stdout)
    assert [row["path"] for row in found] == ["p/c/d.webp", "p/a.png", "p/b.jpg", *photos]


def test_a_record_lies_beside_the_output(run: Run, photos: list[str], tiny_detector: Path) -> None:
    assert run(*photos, "--engine", tiny_detector, "--output", "s.csv", "--threshold", 0.4).code == 0
    record = json.loads(Path("s.csv.run.json").read_text())
    assert record["run"]["detector"] == "tiny"
    assert (record["run"]["threshold"], record["run"]["threshold_source"]) == (0.4, "given by the user")
    assert (record["inputs"], record["device"], sum(record["labels"].values())) == (photos, "cpu", 3)


def test_the_demo_says_what_it_is_worth(
    run: Run, photos: list[str], tiny_detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = Path(shutil.copytree(tiny_detector, tmp_path / "demo"))
    edit(demo, notice="worth nothing")
    monkeypatch.setattr("spai_runtime.detector.demo_directory", lambda: demo)
    ran = run(*photos)
    assert (ran.code, ran.stderr) == (0, "spai-run: worth nothing\n")


def test_silence_in_a_pipe(photos: list[str], tiny_detector: Path, tmp_path: Path) -> None:
    """Neither colours that were asked for, nor palettes, nor many pixels make it talk."""
    for name in write_odd_images(tmp_path / "p"):
        if "3000" in name:  # too much for the limit below, once padded
            (tmp_path / "p" / name).unlink()
    Path(photos[1]).rename("p/é.jpg")
    prelude = "from PIL import Image\nImage.MAX_IMAGE_PIXELS = 3600"  # Pillow warns of what is above
    options = "--engine", tiny_detector, "--precision", "fp32"  # bf16 would be compared on examples, which are larger
    ran = spawn("p", *options, prelude=prelude, FORCE_COLOR="1", PYTHONIOENCODING="ascii")
    assert (ran.code, ran.stderr) == (0, "")
    assert "p/\\xe9.jpg," in ran.stdout
    assert "p/latin-\\udce9.png," in ran.stdout
    to_file = spawn("p/a.png", "--engine", tiny_detector, "--output", "s.csv", FORCE_COLOR="1")
    assert (to_file.code, to_file.stdout, to_file.stderr) == (0, "", "")


@pytest.mark.parametrize("size", [(1, 1), (5, 31), (32, 32)])
def test_small_images(run: Run, tmp_path: Path, tiny_detector: Path, size: tuple[int, int]) -> None:
    Image.fromarray(pixels(*size)).save(tmp_path / "a.png")
    (row,) = rows(run(tmp_path, "--engine", tiny_detector).stdout)
    assert (row["views"], row["error"]) == ("5", "")


def test_rows_for_a_spreadsheet(run: Run, photos: list[str], tiny_detector: Path) -> None:
    Path(photos[0]).rename("=1+1.png")
    Path("-l.csv").write_text("image,=note\n=1+1.png,@x\np/b.jpg,-3\n")
    options = "./-l.csv", "--engine", tiny_detector, "--spreadsheet"
    ran = run(*options)
    first, second = rows(ran.stdout)
    assert (first["image"], first["'=note"], first["path"]) == ("'=1+1.png", "'@x", "'=1+1.png")
    assert (second["image"], second["'=note"], second["path"]) == ("p/b.jpg", "-3", "p/b.jpg")
    assert float(second["logit"])
    assert run(*options, "--output", "s.csv").code == 0
    assert Path("s.csv").read_text() == ran.stdout
    for refused in (("--format", "jsonl"), ("--format", "table"), ("--output", "s.jsonl")):
        ended = run(*options, *refused)
        assert ended.code == 2
        assert ended.stderr.startswith("spai-run: --spreadsheet guards the cells of CSV: ")
    assert json.loads(Path("s.csv.run.json").read_text())["run"]["spreadsheet"] is True

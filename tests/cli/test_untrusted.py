"""spai-run --untrusted: what strangers send is decoded by few decoders."""

import csv
import io
from pathlib import Path

import pytest
from PIL import Image

from spai_runtime import FORMATS, UNTRUSTED_FORMATS, Detector, ImageError, score_all
from tests.support.commands import Run
from tests.support.images import pixels

BLOCKED = ("tif", "bmp", "jp2", "ppm")
OPENED = ("jpg", "png", "webp", "gif", "avif")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One image of each kind, and a TIFF that calls itself a JPEG."""
    (tmp_path / "images").mkdir()
    for suffix in (*BLOCKED, *OPENED):
        Image.fromarray(pixels(70, 80)).save(tmp_path / "images" / f"a.{suffix}")
    (tmp_path / "images" / "disguised.jpg").write_bytes((tmp_path / "images" / "a.tif").read_bytes())
    return tmp_path / "images"


def test_the_formats_are_all_but_those_that_attackers_like() -> None:
    assert set(FORMATS) - set(UNTRUSTED_FORMATS) == {"TIFF", "BMP", "JPEG2000", "PPM"}


def test_a_row_of_each_file_says_so(run: Run, folder: Path, tiny_detector: Path) -> None:
    ran = run(folder, "--engine", tiny_detector, "--untrusted")
    assert ran.code == 3
    found = {Path(row["path"]).name: row for row in csv.DictReader(io.StringIO(ran.stdout, newline=""))}
    refused = {name for name, row in found.items() if row["error"]}
    assert refused == {*(f"a.{suffix}" for suffix in BLOCKED), "disguised.jpg"}
    assert {row["error"] for row in found.values() if row["error"]} == {
        "not an image in a format that can be read (JPEG, MPO, PNG, WEBP, AVIF, GIF)"
    }
    assert run(folder, "--engine", tiny_detector).code == 0


def test_rows_of_the_one_are_not_resumed_by_the_other(run: Run, folder: Path, tiny_detector: Path) -> None:
    output = folder.parent / "scores.csv"
    run(folder, "--engine", tiny_detector, "--output", output)
    ran = run(folder, "--engine", tiny_detector, "--output", output, "--untrusted", "--resume")
    assert ran.code == 3
    assert output.read_text().count("not an image in a format") == len(BLOCKED) + 1


def test_in_python(folder: Path, tiny_detector: Path) -> None:
    with Detector.load(tiny_detector, device="cpu") as detector:
        for suffix in BLOCKED:
            content = (folder / f"a.{suffix}").read_bytes()
            assert 0 <= detector.score(content).score <= 1
            with pytest.raises(ImageError, match="not an image in a format"):
                detector.score(content, UNTRUSTED_FORMATS)
        (result,) = score_all(detector, [folder / "a.bmp"], formats=UNTRUSTED_FORMATS)
        assert result.error.startswith("not an image in a format")

"""spai-run --report and --from-rows, as a user calls them."""

import csv
import json
import os
from pathlib import Path

import pytest

from tests.support.commands import Run
from tests.support.images import Write, write_bad_images
from tests.support.pages import Page

BARE = "--backend", "onnxruntime", "--device", "cpu"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def shown(page: Page) -> list[tuple[str, ...]]:
    """Name, label and score of each image."""
    return [*zip(*(page.values("article", f"data-{name}") for name in ("name", "label", "score")), strict=True)]


def expected(rows: list[dict[str, str]]) -> list[tuple[str, ...]]:
    return [(row["path"], "error" if row["error"] else row["label"], row["score"]) for row in rows]


@pytest.fixture
def folder(photo: Write) -> Path:
    """Images of one row of tiles and of a few, one that turns, and those that no detector can score."""
    made = photo("images/a.png", 70, 90).parent
    photo("images/b.png", 130, 200, seed=1)
    photo("images/c d.jpg", 130, 131, seed=2)
    return made


def test_a_report_says_what_the_rows_say(run: Run, folder: Path, tiny_detector: Path) -> None:
    write_bad_images(folder)
    output, report = folder.parent / "scores.csv", folder.parent / "out" / "report.html"
    plain = run(folder, "--engine", tiny_detector, "--output", folder.parent / "plain.csv", *BARE)
    ran = run(folder, "--engine", tiny_detector, "--output", output, "--report", report, *BARE)
    assert (ran.code, plain.code) == (3, 3)
    assert output.read_bytes() == (folder.parent / "plain.csv").read_bytes(), "rows are written as without it"
    page = Page(report)
    assert shown(page) == expected(rows_of(output))
    assert str(report) in ran.stderr
    manifest = json.loads((tiny_detector / "detector.json").read_text())
    for fact in (manifest["provenance"]["checkpoint_sha256"], manifest["threshold"]["source"], "ONNX Runtime"):
        assert fact in page.text
    assert "heat heat-0" in page.source
    assert [path.name for path in report.parent.iterdir()] == ["report.html"]


def test_a_report_of_rows_that_are_there(run: Run, folder: Path, tiny_detector: Path) -> None:
    """Without scoring: the detector is gone, and the page is the same but for heat maps."""
    write_bad_images(folder)
    for name in ("scores.csv", "scores.jsonl"):
        output, first, again = folder.parent / name, folder.parent / "first.html", folder.parent / "again.html"
        run(folder, "--engine", tiny_detector, "--output", output, "--report", first, *BARE)
        ran = run("--from-rows", output, "--report", again)
        assert (ran.code, ran.stdout) == (0, "")
        one, other = Page(first), Page(again)
        assert shown(one) == shown(other)
        assert one.values("img", "src") == other.values("img", "src")
        assert one.values("image", "href"), "heat maps"
        assert other.values("image", "href") == []
        assert other.text.partition("·")[2].partition(" UTC")[2] == one.text.partition("·")[2].partition(" UTC")[2]


def test_images_that_changed_since_are_not_shown(run: Run, folder: Path, photo: Write, tiny_detector: Path) -> None:
    output, report = folder.parent / "scores.csv", folder.parent / "report.html"
    run(folder, "--engine", tiny_detector, "--output", output, *BARE)
    photo("images/b.png", 30, 40)
    (folder / "a.png").unlink()
    assert run("--from-rows", output, "--report", report).code == 0
    page = Page(report)
    assert len(page.values("img", "src")) == 1
    assert page.text.count("the file has changed since it was scored") == 2
    output.with_name("scores.csv.resume").unlink()
    assert run("--from-rows", output, "--report", report).code == 0
    assert len(Page(report).values("img", "src")) == 2, "nobody knows"
    assert "No such file" in Page(report).text


def test_rows_alone_make_a_page_without_a_card(run: Run, folder: Path, tiny_detector: Path) -> None:
    output, report = folder.parent / "scores.csv", folder.parent / "report.html"
    run(folder, "--engine", tiny_detector, "--output", output, *BARE)
    for name in ("scores.csv.run.json", "scores.csv.resume"):
        (folder.parent / name).unlink()
    assert run("--from-rows", output, "--report", report).code == 0
    page = Page(report)
    assert shown(page) == expected(rows_of(output))
    assert "It is not known" in page.text


@pytest.mark.parametrize(
    "record", ["[]", "{}", "{", '{"run": 7}', '{"run": {"columns": []}, "cards": 5}', "[" * 10_000]
)
def test_a_record_that_is_none_counts_as_none(run: Run, folder: Path, tiny_detector: Path, record: str) -> None:
    output, report = folder.parent / "scores.csv", folder.parent / "report.html"
    run(folder / "a.png", "--engine", tiny_detector, "--output", output, *BARE)
    (folder.parent / "scores.csv.run.json").write_text(record)
    assert run("--from-rows", output, "--report", report).code == 0
    assert "It is not known" in Page(report).text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("image,class\na.png,1\n", "there is no column path"),
        ("path,score,logit,label,width,height,views,error\na.png,high,1,ai,3,3,5,\n", "high is no number"),
        ("path,score,logit,label,width,height,views,error\na.png,0.5,1\n", "no whole file of rows"),
        ('path,score,logit,label,width,height,views,error\n"a.png,0.5,1,ai,3,3,5,\n', "no whole file of rows"),
        ("", "there is no column path"),
        ("\x00\xff", "there is no column path"),
    ],
)
def test_what_holds_no_rows_is_refused(run: Run, tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "rows.csv").write_text(content, encoding="latin-1" if "\xff" in content else "utf-8")
    ran = run("--from-rows", tmp_path / "rows.csv", "--report", tmp_path / "report.html")
    assert ran.code == 2
    assert said in ran.stderr or "no file of rows" in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


def test_own_columns_and_several_detectors(run: Run, folder: Path, tiny_detector: Path) -> None:
    table = folder.parent / "images.csv"
    table.write_text('image,class,who said\nimages/a.png,1,"<b>Bob</b>, twice"\nimages/b.png,0,Alice\n')
    output, report = folder.parent / "scores.csv", folder.parent / "report.html"
    engines = "--engine", tiny_detector, "--engine", tiny_detector
    ran = run(table, *engines, "--output", output, "--report", report, "--spreadsheet", *BARE)
    assert ran.code == 0, ran.stderr
    page, rows = Page(report), rows_of(output)
    assert [row["fusion_score"] for row in rows] == page.values("article", "data-score")
    assert [row["tiny_2_score"] for row in rows] == page.values("article", "data-score-1")
    assert "who said <b>Bob</b>, twice" in page.text
    assert "soft_or" in page.text
    again = folder.parent / "again.html"
    assert run("--from-rows", output, "--report", again).code == 0
    assert "soft_or" in Page(again).text
    assert shown(Page(again)) == shown(page)


def test_a_resumed_run_has_all_images(run: Run, folder: Path, tiny_detector: Path) -> None:
    """Those of before without a heat map, which no row holds."""
    output, report = folder.parent / "scores.csv", folder.parent / "report.html"
    options = "--engine", tiny_detector, "--output", output, *BARE
    run(folder, *options)
    (folder / "e.png").write_bytes((folder / "b.png").read_bytes())
    ran = run(folder, *options, "--resume", "--report", report)
    assert ran.code == 0, ran.stderr
    page = Page(report)
    assert shown(page) == expected(rows_of(output))
    assert len(page.values("img", "src")) == 4
    assert len(page.values("image", "href")) == 1, "the heat map of the new one"


def test_names_that_a_spreadsheet_would_run_are_found_again(run: Run, folder: Path, tiny_detector: Path) -> None:
    folder = (folder / "a.png").rename(folder / "=a.png").parent
    output, report = folder.parent / "scores.csv", folder.parent / "report.html"
    here = Path.cwd()
    try:
        os.chdir(folder)
        run("=a.png", "--engine", tiny_detector, "--output", output, "--spreadsheet", *BARE)
        assert run("--from-rows", output, "--report", report).code == 0
    finally:
        os.chdir(here)
    page = Page(report)
    assert page.values("article", "data-name") == ["'=a.png"]
    assert len(page.values("img", "src")) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--report", "scores.csv"], "name it .html"),
        (["--from-rows", "scores.csv"], "--report"),
        (["--from-rows", "scores.csv", "--report", "a.html"], "leave INPUT"),
        (["--report", "a.html", "--explain"], "--explain"),
        (["--report", "page.html", "page.html"], "name another --report"),
    ],
)
def test_options_that_do_not_go_together(
    run: Run, folder: Path, options: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "page.html").write_text("an input")
    ran = run("a.png", *options)
    assert ran.code == 2
    assert said in ran.stderr
    assert (folder / "page.html").read_text() == "an input"


def test_images_of_strangers_are_not_decoded_to_be_shown(
    run: Run, folder: Path, photo: Write, tiny_detector: Path
) -> None:
    photo("images/d.tif", 40, 50)
    output, report = folder.parent / "scores.csv", folder.parent / "report.html"
    run(folder, "--engine", tiny_detector, "--output", output, "--report", report, "--untrusted", *BARE)
    assert len(page_pictures(report)) == 3
    run("--from-rows", output, "--report", report)
    assert len(page_pictures(report)) == 3, "the record says so"


def page_pictures(path: Path) -> list[str]:
    return Page(path).values("img", "src")

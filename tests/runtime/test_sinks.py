"""Result files: read by other readers, whole or not there, and the same bytes however often a run was cut off."""

import csv
import errno
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from spai_runtime import OutputError, Result, Score, Tiles
from spai_runtime.calibration import probability
from spai_runtime.files.result_file import ResultFile
from spai_runtime.files.rows import FILE_FORMATS, RESULT_COLUMNS, Columns, format_of
from spai_runtime.files.sinks import Stream
from spai_runtime.files.sources import Item
from spai_runtime.files.stamps import Stamp
from spai_runtime.fusion import Fusion, Rule

RUN = {"detector": "test", "threshold": 0.5}
OWN = ("image", "score", "class")
COLUMNS = Columns(OWN)
NAMES = ["image", "input_score", "class", *RESULT_COLUMNS]
LAYOUT = Tiles(8, 8, 0).layout(16, 24)


def scored(name: str, value: float, *own: str) -> Result:
    """A result whose input had these cells in OWN."""
    label: Literal["ai", "real"] = "ai" if value > 0.5 else "real"
    logit = round(value * 7 - 3, 4)
    score = Score(value, logit, label, np.full(6, 1 / 6, np.float32), LAYOUT, logit)
    return Result(Item(Path(name), name, dict(zip(OWN, own, strict=False))), (score,), 24, 16)


RESULTS = (
    scored("a.jpg", 0.25, "a.jpg", "9", "1"),
    scored('comma, "quote" and\nnew\nline.jpg', 0.75, "b"),
    Result(Item(Path("c.jpg"), "c\r.jpg", {"image": "c\n"}), (), None, None, "cannot be read: gone, away"),
    scored("ü \U0001f4f7.jpg", 1e-30, "", "", "x,y"),
    Result(Item(Path("d.jpg"), "d.jpg"), (), 5, 6, "truncated"),
    scored("\\udce9.jpg", 0.5, "e"),
)
ITEMS = [result.item for result in RESULTS]
EXPECTED = [
    ["a.jpg", "9", "1", "a.jpg", "0.25", "-1.25", "real", "24", "16", "6", ""],
    ["b", "", "", 'comma, "quote" and\nnew\nline.jpg', "0.75", "2.25", "ai", "24", "16", "6", ""],
    ["c\n", "", "", "c\r.jpg", "", "", "", "", "", "", "cannot be read: gone, away"],
    ["", "", "x,y", "ü \U0001f4f7.jpg", "1e-30", "-3.0", "real", "24", "16", "6", ""],
    ["", "", "", "d.jpg", "", "", "", "5", "6", "", "truncated"],
    ["e", "", "", "\\udce9.jpg", "0.5", "0.5", "real", "24", "16", "6", ""],
]


def write(
    path: Path, results: Sequence[Result] = RESULTS, columns: Columns = COLUMNS, *, resume: bool = False, **run: Any
) -> tuple[bytes, int]:
    """A whole run; :returns: what the file holds in the end, and how many rows were kept from before."""
    by_name = {result.item.name: result for result in results}
    with ResultFile(path, columns, {**RUN, **run}, resume=resume) as file:
        todo, labels = file.skip(iter([result.item for result in results]))
        for item in todo:
            file.write(by_name[item.name])
        file.finish(labels=dict(labels))
    return path.read_bytes(), labels.total()


@pytest.fixture(params=["csv", "jsonl"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / "deep" / f"scores.{request.param}"


def partial(path: Path) -> Path:
    return Path(f"{path}.partial")


def record(path: Path) -> Path:
    return Path(f"{path}.run.json")


def stamps(path: Path) -> Path:
    return Path(f"{path}.resume")


def interrupt(path: Path, rows: int, results: Sequence[Result] = RESULTS, **run: Any) -> None:
    """A run that writes some rows and dies."""
    with ResultFile(path, COLUMNS, {**RUN, **run}) as file:
        for result in results[:rows]:
            file.write(result)


def test_csv_is_read_by_any_reader(tmp_path: Path) -> None:
    content, _ = write(tmp_path / "s.csv")
    text = content.decode("utf-8")
    assert list(csv.reader(io.StringIO(text, newline=""), strict=True)) == [NAMES, *EXPECTED]
    assert text.startswith(",".join(NAMES) + "\na.jpg,9,1,a.jpg,0.25,-1.25,real,24,16,6,\n")


def test_json_lines_are_read_by_any_reader(tmp_path: Path) -> None:
    content, _ = write(tmp_path / "s.jsonl")
    rows = [json.loads(line) for line in content.decode("utf-8").split("\n")[:-1]]
    assert [list(row) for row in rows] == [NAMES] * len(RESULTS)
    assert [["" if value is None else str(value) for value in row.values()] for row in rows] == EXPECTED
    assert rows[2]["score"] is None
    assert isinstance(rows[0]["score"], float)


def test_a_stream_is_the_file(path: Path) -> None:
    stream = io.StringIO()
    sink = Stream(stream, format_of(path), COLUMNS)
    for result in RESULTS:
        sink.write(result)
    assert stream.getvalue().encode() == write(path)[0]


def test_names_of_own_columns_never_collide() -> None:
    columns = ["path", "input_path", "image", "input_input_path"]
    item = Item(Path("a"), "a.jpg", dict(zip(columns, "wxyz", strict=True)))
    row = Columns(columns).row_of(Result(item, error="bad"))
    assert list(row.values()) == ["w", "x", "y", "z", "a.jpg", None, None, None, None, None, None, "bad"]
    assert len(set(row)) == 4 + len(RESULT_COLUMNS)


@pytest.mark.parametrize("name", ["s.txt", "s", "s.parquet", "csv"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"name it \.csv or \.jsonl"):
        ResultFile(tmp_path / name, COLUMNS, RUN)
    assert list(tmp_path.iterdir()) == []


def test_the_name_appears_when_the_file_is_complete(path: Path) -> None:
    with ResultFile(path, COLUMNS, RUN) as file:
        for result in RESULTS:
            file.write(result)
            assert partial(path).read_bytes().endswith(b"\n")  # a killed process loses no row
            assert not path.exists()
        file.finish(labels={"ai": 1})
    assert sorted(path.parent.iterdir()) == [path, stamps(path), record(path)]
    assert json.loads(record(path).read_text()) == {"run": {**RUN, "columns": NAMES}, "labels": {"ai": 1}}


def test_an_old_file_stays_until_then(path: Path) -> None:
    whole, _ = write(path)
    interrupt(path, 2)
    assert path.read_bytes() == whole


def test_resuming_after_a_cut_at_any_byte(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a number, a quoted newline, a character of four bytes, before the last newline: anywhere."""
    monkeypatch.setattr("os.fsync", lambda _: None)  # a thousand of them take their time
    results = RESULTS[1:4]
    whole, _ = write(path, results)
    kept_stamps = stamps(path).read_bytes()
    kept = []
    for end in range(len(whole) + 1):
        path.unlink()
        partial(path).write_bytes(whole[:end])
        partial(stamps(path)).write_bytes(kept_stamps)
        content, rows = write(path, results, resume=True)
        assert content == whole, end
        kept.append(rows)
    assert kept == sorted(kept)
    assert set(kept) == {0, 1, 2, 3}
    assert kept[-2:] == [2, 3]


def test_stamps_that_were_cut_at_any_byte(path: Path) -> None:
    """A row whose stamp is not whole is done again, and those after it."""
    whole, _ = write(path)
    content = stamps(path).read_bytes()
    assert len(content) == 32 * len(RESULTS)
    for end in range(1, len(content), 7):
        path.unlink()
        partial(path).write_bytes(whole)
        partial(stamps(path)).write_bytes(content[:end])
        assert write(path, resume=True) == (whole, end // 32)


def test_rows_without_stamps_are_done_again(path: Path) -> None:
    """An earlier version wrote none."""
    whole, _ = write(path)
    stamps(path).unlink()
    assert write(path, resume=True) == (whole, 0)
    interrupt(path, 3)
    for left in (stamps(path), partial(stamps(path))):
        left.unlink()
    path.unlink()
    assert write(path, resume=True) == (whole, 0)


@pytest.mark.parametrize("row", range(len(RESULTS)))
def test_a_row_that_was_edited_is_done_again(path: Path, row: int) -> None:
    """And so is one of another run: a stamp fits the very row, of this run alone."""
    whole, _ = write(path)
    edited = whole.replace(b"1e-30", b"2e-30", 1) if row == 3 else whole
    path.write_bytes(edited)
    assert write(path, resume=True) == (whole, 3 if row == 3 else len(RESULTS))
    content = stamps(path).read_bytes()
    write(path, threshold=0.6)
    other = stamps(path).read_bytes()
    path.write_bytes(whole)
    stamps(path).write_bytes(content[: 32 * row] + other[32 * row :])
    assert write(path, resume=True) == (whole, row)


CHANGES: dict[str, Callable[[Path], object]] = {
    "longer": lambda image: image.write_bytes(b"longer"),
    "touched": lambda image: os.utime(image, ns=(7, 7)),
    "gone": Path.unlink,
    "a folder": lambda image: (image.unlink(), image.mkdir()),
    "far in the future": lambda image: os.utime(image, ns=(2**62, 2**62)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("finished", [False, True])
def test_an_image_that_changed_is_done_again(path: Path, tmp_path: Path, change: str, finished: bool) -> None:
    """And all behind it, also if it is back as it was."""
    images = [tmp_path / f"{number}.jpg" for number in range(3)]

    def results() -> list[Result]:
        return [replace(scored(str(image), 0.7), stamp=Stamp.of(image)) for image in images]

    for image in images:
        image.write_bytes(b"x")
    before = results()
    whole, _ = write(path, before)
    if not finished:
        path.unlink()
        interrupt(path, 3, before)
    CHANGES[change](images[1])
    assert write(path, results(), resume=True) == (whole, 1)
    assert write(path, results(), resume=True) == (whole, 3)
    if change == "gone":
        images[1].write_bytes(b"back")
        assert write(path, results(), resume=True) == (whole, 1)


@pytest.mark.parametrize("name", ["", ".run.json", ".resume", ".partial", ".run.json.partial", ".resume.partial"])
@pytest.mark.parametrize("other", ["link", "dangling", "pipe", "folder"])
@pytest.mark.parametrize("resume", [False, True])
def test_nothing_is_written_through_what_is_no_file(tmp_path: Path, name: str, other: str, resume: bool) -> None:
    planted = tmp_path / f"s.csv{name}"
    (tmp_path / "victim").write_text("kept")
    if other == "pipe":
        os.mkfifo(planted)
    elif other == "folder":
        planted.mkdir()
    else:
        planted.symlink_to("victim" if other == "link" else "gone")
    with pytest.raises(OutputError, match=rf"cannot write .*s\.csv{re.escape(name)}: a link, a folder, a pipe"):
        write(tmp_path / "s.csv", resume=resume)
    assert (tmp_path / "victim").read_text() == "kept"
    assert {found.name for found in tmp_path.iterdir()} == {planted.name, "victim"}


@pytest.mark.parametrize("resume", [False, True])
def test_a_file_that_another_run_writes_is_refused(path: Path, resume: bool) -> None:
    whole, _ = write(path)
    with ResultFile(path, COLUMNS, RUN) as file:
        for result in RESULTS:
            with pytest.raises(OutputError, match=r"another run is writing .*partial: wait until it has ended"):
                write(path, resume=resume, threshold=0.9)
            file.write(result)
        file.finish()
        write(path, threshold=0.9)  # the name is free once the other has it
    assert write(path) == (whole, 0)


def test_a_file_system_without_locks_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    whole, _ = write(path)
    monkeypatch.setattr("fcntl.flock", without)
    interrupt(path, 2)
    path.unlink()
    assert write(path, resume=True) == (whole, 2)


def test_what_is_replaced(path: Path) -> None:
    def replaces(results: Sequence[Result] = RESULTS, *, resume: bool = False, **run: Any) -> bool:
        with ResultFile(path, COLUMNS, {**RUN, **run}, resume=resume) as file:
            file.skip(iter([result.item for result in results]))
            return file.replaces

    assert not replaces()
    write(path)
    assert replaces()
    for left in (partial(path), partial(stamps(path))):
        left.unlink()
    assert not replaces(resume=True)
    assert replaces(RESULTS[:3], resume=True), "rows go"
    for left in (partial(path), partial(stamps(path))):
        left.unlink()
    assert replaces(resume=True, threshold=0.9)


@pytest.mark.parametrize("rows", [0, 3, len(RESULTS)])
def test_rows_of_another_run_are_not_kept(path: Path, rows: int) -> None:
    whole, _ = write(path)
    interrupt(path, rows, threshold=0.6)
    other = scored("a.jpg", 0.9)
    assert write(path, resume=True, threshold=0.7) == (whole, 0)
    interrupt(path, 1, [other])
    assert write(path, resume=True, threshold=0.6) == (whole, 0)


def test_resuming_a_finished_run_keeps_all_of_it(path: Path) -> None:
    whole, _ = write(path)
    assert write(path, resume=True) == (whole, len(RESULTS))
    assert write(path, resume=True) == (whole, len(RESULTS))


def test_without_resume_everything_is_done_again(path: Path) -> None:
    whole, _ = write(path)
    assert write(path) == (whole, 0)
    interrupt(path, 4)
    assert write(path) == (whole, 0)


@pytest.mark.parametrize("place", range(len(RESULTS) + 1))
def test_a_file_that_was_added(path: Path, place: int) -> None:
    """What comes before it is kept, and the result is that of an uninterrupted run."""
    longer = [*RESULTS[:place], scored("new.jpg", 0.1), *RESULTS[place:]]
    expected, _ = write(path, longer)
    for done in (3, len(RESULTS)):
        path.unlink()
        interrupt(path, done)
        assert write(path, longer, resume=True) == (expected, min(done, place))


def test_a_file_that_was_taken_away(path: Path) -> None:
    shorter = [*RESULTS[:2], *RESULTS[3:]]
    expected, _ = write(path, shorter)
    interrupt(path, 5)
    assert write(path, shorter, resume=True) == (expected, 2)
    interrupt(path, 5)
    assert write(path, RESULTS[:2], resume=True) == (write(path, RESULTS[:2])[0], 2)


def test_a_column_that_changed(path: Path) -> None:
    """The same image under another class is another row."""
    changed = [RESULTS[0], scored(RESULTS[1].item.name, 0.75, "b", "", "0"), *RESULTS[2:]]
    interrupt(path, 4)
    assert write(path, changed, resume=True)[1] == 1


def test_labels_of_kept_rows_are_counted(path: Path) -> None:
    interrupt(path, 5)
    with ResultFile(path, COLUMNS, RUN, resume=True) as file:
        _, labels = file.skip(iter(ITEMS))
    assert labels == {"real": 2, "ai": 1, "error": 2}


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write .*s\.csv: "):
        ResultFile(tmp_path / "file" / "s.csv", COLUMNS, RUN)
    with ResultFile(tmp_path / "s.csv", COLUMNS, RUN) as file:
        (tmp_path / "s.csv").mkdir()
        with pytest.raises(OutputError, match=r"cannot finish .*s\.csv: "):
            file.finish()


def test_every_format_has_a_name() -> None:
    assert set(FILE_FORMATS) == {"csv", "jsonl"}


SEVERAL = Columns(("image",), ("spai", "spai"), Fusion(Rule.MEAN_LOGIT))


def scored_twice(name: str, *logits: float | None, error: str = "") -> Result:
    """Two detectors without attention, of which one may have failed."""
    pairs = [(logit, probability(logit)) for logit in logits if logit is not None]
    known = iter([Score(score, logit, "ai" if score > 0.5 else "real", None, LAYOUT, logit) for logit, score in pairs])
    scores = tuple(None if logit is None else next(known) for logit in logits)
    return Result(Item(Path(name), name, {"image": name}), scores, 24, 16, error)


TWICE = (
    scored_twice("a.jpg", 2.0, -1.0),
    scored_twice("b\n.jpg", 1.0, None, error="spai_2: the head cannot run"),
    scored_twice("c.jpg", error="truncated"),
    scored_twice("d.jpg", 0.5, -3.0),
)


def test_rows_of_several_detectors(tmp_path: Path) -> None:
    content, _ = write(tmp_path / "s.csv", TWICE, SEVERAL)
    assert content.decode() == (
        "image,path,spai_score,spai_logit,spai_label,spai_2_score,spai_2_logit,spai_2_label,fusion_score,fusion_label,"
        "width,height,error\n"
        "a.jpg,a.jpg,0.88079708,2.0,ai,0.26894142,-1.0,real,0.62245933,ai,24,16,\n"
        '"b\n.jpg","b\n.jpg",0.73105858,1.0,ai,,,,,,24,16,spai_2: the head cannot run\n'
        "c.jpg,c.jpg,,,,,,,,,24,16,truncated\n"
        "d.jpg,d.jpg,0.62245933,0.5,ai,0.047425873,-3.0,real,0.22270014,real,24,16,\n"
    )


def test_resuming_a_run_of_several_detectors(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a cut anywhere, with the labels of a run that was not cut."""
    monkeypatch.setattr("os.fsync", lambda _: None)
    whole, _ = write(path, TWICE, SEVERAL)
    kept_stamps = stamps(path).read_bytes()
    assert json.loads(record(path).read_text())["run"]["columns"] == SEVERAL.names
    for end in (*range(0, len(whole), 17), len(whole)):
        path.unlink()
        partial(path).write_bytes(whole[:end])
        partial(stamps(path)).write_bytes(kept_stamps)
        with ResultFile(path, SEVERAL, RUN, resume=True) as file:
            _, labels = file.skip(iter([result.item for result in TWICE]))
        assert labels == Counter(map(SEVERAL.label_of, TWICE[: labels.total()])), end
        assert write(path, TWICE, SEVERAL, resume=True) == (whole, labels.total())
    assert labels == {"ai": 1, "real": 1, "error": 2}


def test_rows_of_other_detectors_are_not_kept(path: Path) -> None:
    write(path, TWICE, SEVERAL)
    for other in (replace(SEVERAL, fusion=None), replace(SEVERAL, detectors=("spai", "clipdet"))):
        assert write(path, TWICE, other, resume=True)[1] == 0

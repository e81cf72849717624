"""The table that a terminal shows."""

import pytest

from spai_runtime.cli.table import Table
from spai_runtime.files.rows import Columns
from spai_runtime.fusion import Fusion

ONE = Table(Columns(()), 0.9, "ai")
ROW = {
    "path": "a.jpg",
    "score": 0.12344,
    "logit": -1.9,
    "label": "real",
    "width": 640,
    "height": 480,
    "views": 6,
    "error": None,
}


def test_columns_stand_below_their_titles() -> None:
    said, title, rule = ONE.header([]).splitlines()
    assert said == "The label is ai where the score is above 0.9."
    row = ONE.encode(ROW).rstrip("\n")
    assert row == " 0.1234  real       640×480      6  a.jpg"
    assert [title.index("image"), title.index("label")] == [row.index("a.jpg"), row.index("real")]
    assert title.index("views") + len("views") == row.index("6  a") + 1
    assert set(rule) == {"─"}


@pytest.mark.parametrize(("size", "shown"), [((None, None), ""), ((30, 40), "30×40")])
def test_an_error_takes_the_place_of_a_score(size: tuple[int | None, int | None], shown: str) -> None:
    row = {**dict.fromkeys(ROW), "path": "a.jpg", "width": size[0], "height": size[1], "error": "the file is empty"}
    assert ONE.encode(row).split() == ["—", "error", *shown.split(), "a.jpg:", "the", "file", "is", "empty"]


def test_a_row_is_one_line() -> None:
    assert ONE.encode({**ROW, "path": "a\nb.jpg"}).endswith("a\\nb.jpg\n")
    assert ONE.encode({**ROW, "path": "a\nb.jpg"}).count("\n") == 1


def test_a_name_cannot_steer_the_terminal() -> None:
    assert "a\\x1b[2Jb.jpg" in ONE.encode({**ROW, "path": "a\x1b[2Jb.jpg"})


def test_an_error_cannot_steer_it_either() -> None:
    row = {**dict.fromkeys(ROW), "path": "a.jpg", "error": "\x1b[2J is no\nimage"}
    assert ONE.encode(row).endswith("  a.jpg: \\x1b[2J is no\\nimage\n")


NAMES = ("spai", "community\x1b[2J-forensics", "spai")
SEVERAL = {
    "path": "a\x1b[2J.jpg",
    "spai_score": 0.12344,
    "spai_label": "real",
    "community__2J-forensics_score": 0.98766,
    "community__2J-forensics_label": "ai",
    "spai_2_score": 1.0,
    "spai_2_label": "ai",
    "fusion_score": 0.75,
    "fusion_label": "ai",
    "width": 640,
    "height": 480,
    "error": None,
}


def test_several_detectors_stand_side_by_side() -> None:
    table = Table(Columns((), NAMES, Fusion()), 0.9, "ai")
    said, title, rule = table.header([]).splitlines()
    assert said == "The label is ai where the fused score is above 0.9."
    assert title == "   spai  community__…   spai_2    fused  label         size  image"
    assert set(rule) == {"─"}
    assert table.encode(SEVERAL) == " 0.1234        0.9877   1.0000   0.7500  ai         640×480  a\\x1b[2J.jpg\n"


def test_scores_stay_where_a_detector_failed() -> None:
    row = {**SEVERAL, "spai_2_score": None, "spai_2_label": None, "fusion_score": None, "fusion_label": None}
    line = Table(Columns((), NAMES, Fusion()), 0.9, "ai").encode({**row, "error": "spai_2: no head"})
    assert line == " 0.1234        0.9877        —        —  error      640×480  a\\x1b[2J.jpg: spai_2: no head\n"


def test_several_detectors_that_are_not_fused() -> None:
    table = Table(Columns((), NAMES), 0.9, "ai")
    assert table.header([]).splitlines()[1].split()[:5] == ["spai", "community__…", "spai_2", "label", "size"]
    assert table.encode(SEVERAL).split()[:5] == ["0.1234", "0.9877", "1.0000", "ai", "640×480"]

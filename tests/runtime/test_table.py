"""The table that a terminal shows."""

import pytest

from spai_runtime.cli.table import Table

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
    title, rule = Table().header([]).splitlines()
    row = Table().encode(ROW).rstrip("\n")
    assert row == " 0.1234  real       640×480      6  a.jpg"
    assert [title.index("image"), title.index("label")] == [row.index("a.jpg"), row.index("real")]
    assert title.index("views") + len("views") == row.index("6  a") + 1
    assert set(rule) == {"─"}


@pytest.mark.parametrize(("size", "shown"), [((None, None), ""), ((30, 40), "30×40")])
def test_an_error_takes_the_place_of_a_score(size: tuple[int | None, int | None], shown: str) -> None:
    row = {**dict.fromkeys(ROW), "path": "a.jpg", "width": size[0], "height": size[1], "error": "the file is empty"}
    assert Table().encode(row).split() == ["—", "error", *shown.split(), "a.jpg:", "the", "file", "is", "empty"]


def test_a_row_is_one_line() -> None:
    assert Table().encode({**ROW, "path": "a\nb.jpg"}).endswith("a\\nb.jpg\n")
    assert Table().encode({**ROW, "path": "a\nb.jpg"}).count("\n") == 1


def test_a_name_cannot_steer_the_terminal() -> None:
    assert "a\\x1b[2Jb.jpg" in Table().encode({**ROW, "path": "a\x1b[2Jb.jpg"})

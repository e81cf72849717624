"""Columns: names that never collide, rows that are known again, and labels that are counted alike."""

import io
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spai_runtime import Result, Score, Threshold, Tiles
from spai_runtime.calibration import Isotonic, Platt, log_odds, probability
from spai_runtime.files.rows import FILE_FORMATS, RESULT_COLUMNS, Columns, FileFormat
from spai_runtime.files.sources import Item
from spai_runtime.fusion import Fusion, Rule

LAYOUT = Tiles(8, 8, 0).layout(16, 24)
ITEM = Item(Path("a.jpg"), "a.jpg", {"class": "1"})


def score(logit: float, calibration: Platt | Isotonic | None = None) -> Score:
    value = probability(logit, calibration)
    return Score(value, logit, "ai" if value > 0.5 else "real", None, LAYOUT, log_odds(logit, calibration))


def test_one_detector() -> None:
    columns = Columns(["class"])
    assert columns.names == ["class", "path", "score", "logit", "label", "width", "height", "views", "error"]
    row = columns.row_of(Result(ITEM, (score(0.0),), 24, 16))
    assert list(row.items()) == list(zip(columns.names, ["1", "a.jpg", 0.5, 0.0, "real", 24, 16, 6, None], strict=True))


@pytest.mark.parametrize("scores", [(), (None,)])
def test_one_detector_that_failed(scores: tuple[None, ...]) -> None:
    row = Columns(["class"]).row_of(Result(ITEM, scores, 24, 16, "bad"))
    assert list(row.values()) == ["1", "a.jpg", None, None, None, 24, 16, None, "bad"]


def test_several_detectors() -> None:
    columns = Columns(["class"], ["spai", "clipdet"], Fusion(Rule.MAX_LOGIT))
    values = {
        "class": "1",
        "path": "a.jpg",
        "spai_score": 0.5,
        "spai_logit": 0.0,
        "spai_label": "real",
        "clipdet_score": 0.73105858,
        "clipdet_logit": 1.0,
        "clipdet_label": "ai",
        "fusion_score": 0.73105858,
        "fusion_label": "ai",
        "width": 24,
        "height": 16,
        "error": None,
    }
    assert columns.names == list(values)
    result = Result(ITEM, (score(0.0), score(1.0)), 24, 16)
    assert list(columns.row_of(result).items()) == list(values.items())
    alone = Columns(["class"], ["spai", "clipdet"])
    assert alone.row_of(result) == {name: cell for name, cell in values.items() if not name.startswith("fusion")}


def test_calibrated_scores_are_what_is_fused() -> None:
    """Not the logits, which are on another scale with each detector."""
    calibrations = Platt(0.5, -1.0, "test"), Isotonic((-100.0, 100.0), (0.25, 0.75), "test")
    scores = score(8.0, calibrations[0]), score(20.0, calibrations[1])
    row = Columns((), ["a", "b"], Fusion(Rule.MEAN_PROB)).row_of(Result(ITEM, scores))
    assert (row["a_score"], row["b_score"]) == (pytest.approx(0.95257413), 0.55)
    assert row["fusion_score"] == pytest.approx((0.95257413 + 0.55) / 2, abs=1e-8)


def test_the_threshold_of_the_fusion_is_its_own() -> None:
    result = Result(ITEM, (score(3.0), score(-1.0)))
    fused = Columns((), ["a", "b"], Fusion(Rule.MEAN_LOGIT, Threshold(0.9, "given by the user")))
    assert (fused.row_of(result)["fusion_score"], fused.label_of(result)) == (0.73105858, "real")
    assert Columns((), ["a", "b"], Fusion(Rule.MEAN_LOGIT)).label_of(result) == "ai"


@pytest.mark.parametrize("scores", [(score(1.0), None), (None, score(1.0)), (None, None), ()])
@pytest.mark.parametrize("rule", [*Rule, None])
def test_one_of_several_that_failed(scores: tuple[Score | None, ...], rule: Rule | None) -> None:
    columns = Columns((), ["a", "b"], Fusion(rule) if rule else None)
    result = Result(ITEM, scores, 24, 16, "b: bad")
    row = columns.row_of(result)
    for name, one in zip("ab", scores or (None, None), strict=True):
        cells = [row[f"{name}_{cell}"] for cell in ("score", "logit", "label")]
        assert cells == ([0.73105858, 1.0, "ai"] if one else [None] * 3)
    assert (row.get("fusion_score"), row.get("fusion_label"), row["error"]) == (None, None, "b: bad")
    assert columns.label_of(result) == "error"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", "a", "a"], ["a", "a_2", "a_3"]),
        (["a", "a", "a_2"], ["a", "a_2", "a_2_2"]),
        (["a_2", "a", "a"], ["a_2", "a", "a_3"]),
        (["fusion", "fusion"], ["fusion_2", "fusion_3"]),
        (["a,b\n", "a b\x1b"], ["a_b_", "a_b__2"]),
        (["sp-AI 1.0", "détecteur", "检测器"], ["sp-AI_1_0", "détecteur", "检测器"]),
        (["", "", "="], ["detector", "detector_2", "_"]),
    ],
)
def test_names_of_detectors(names: Sequence[str], expected: Sequence[str]) -> None:
    assert Columns((), names).detector_names == expected


@given(
    own=st.lists(st.sampled_from(["path", "input_path", "a_score", "a_2_label", "fusion_score", "x", "input_x"])),
    detectors=st.lists(st.sampled_from(["a", "a_2", "fusion", "input_a", "a\n"]), max_size=5),
)
def test_names_are_all_different(own: list[str], detectors: list[str]) -> None:
    names = Columns(own, detectors if len(detectors) > 1 else ()).names
    assert len(names) == len(set(names))
    assert not {c for name in names for c in name} & set(',\n"')


def test_own_columns_give_way() -> None:
    columns = Columns(["path", "score", "a_score", "fusion_label", "views"], ["a", "b"], Fusion())
    assert columns.names[:5] == ["input_path", "score", "input_a_score", "input_fusion_label", "views"]


@pytest.mark.parametrize("form", FILE_FORMATS.values(), ids=list(FILE_FORMATS))
@pytest.mark.parametrize("detectors", [(), ("a", "b")])
def test_rows_read_back(form: FileFormat, detectors: tuple[str, ...]) -> None:
    """Each is its item's and no other's, and counts as it did when it was written."""
    columns = Columns(["path", "class"], detectors, Fusion() if detectors else None)
    logits = (-3.0, 2.0, None)
    results = [
        Result(
            Item(Path(f"{index}"), f"{index}", {"path": str(index)}),
            tuple(None if logit is None else score(logit) for _ in detectors or "1"),
            error="" if logit else "bad",
        )
        for index, logit in enumerate(logits)
    ]
    lines = io.StringIO(form.header(columns.names) + "".join(form.encode(columns.row_of(result)) for result in results))
    rows = list(form.decode(lines, columns.names))[1:]
    assert [[columns.is_row_of(row, result.item) for result in results] for row in rows] == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]
    assert [columns.label_in(row) for row in rows] == ["real", "ai", "error"]
    assert [columns.label_of(result) for result in results] == ["real", "ai", "error"]


def test_without_fusion_one_detector_is_enough() -> None:
    columns = Columns((), ["a", "b"])
    pairs = [(score(-1.0), score(-2.0)), (score(-1.0), score(2.0)), (score(1.0), score(2.0))]
    assert [columns.label_of(Result(ITEM, pair)) for pair in pairs] == ["real", "ai", "ai"]


def test_many_columns_cost_little() -> None:
    """Comparing each with each would take minutes."""
    own = [f"column {index}" for index in range(20_000 - len(RESULT_COLUMNS))] + [*RESULT_COLUMNS]
    result = Result(Item(Path("a"), "a", dict.fromkeys(own, "1")), (score(1.0),))
    start = time.process_time()
    columns = Columns(own)
    rows = [columns.row_of(result) for _ in range(100)]
    assert columns.is_row_of(rows[-1], result.item)
    assert time.process_time() - start < 1
    assert [len(row) for row in rows] == [20_000 + len(RESULT_COLUMNS)] * 100


RUNS = ["=cmd|' /C calc'!A0", "+1+cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "－cmd"]
RUNS_NOT = ["a=b", "-1", "+1.5e-3", "-.5", "1", "", "'=1", " =1", "ü", "7-7"]


def test_what_a_spreadsheet_would_run_is_guarded() -> None:
    """In cells of the input, names, and errors; numbers stay numbers, negative ones too."""
    own = dict(zip("abcdefghi", RUNS, strict=True)) | dict(zip("klmnopqrst", RUNS_NOT, strict=True))
    columns = Columns([*own], spreadsheet=True)
    result = Result(Item(Path("x"), "=x.jpg", own), (score(-2.0),), 24, 16, "=error")
    row = columns.row_of(result)
    assert [row[name] for name in "abcdefghi"] == [f"'{cell}" for cell in RUNS]
    assert [row[name] for name in "klmnopqrst"] == RUNS_NOT
    assert (row["path"], row["error"], row["logit"], row["label"]) == ("'=x.jpg", "'=error", -2.0, "real")
    assert columns.is_row_of(row, result.item)
    assert not columns.is_row_of({**row, "path": "=x.jpg"}, result.item)
    assert Columns([*own]).row_of(result) == {**own, **row, "path": "=x.jpg", "error": "=error"} | own


def test_names_that_a_spreadsheet_would_run_are_guarded() -> None:
    columns = Columns(["=a", "'=a", "-1"], ["-x", "=y"], Fusion(), spreadsheet=True)
    assert columns.names[:6] == ["'=a", "input_'=a", "-1", "path", "'-x_score", "'-x_logit"]
    assert len(set(columns.names)) == len(columns.names)
    assert not [name for name in columns.names if name[0] in "=+@" or name.startswith("-x")]
    result = Result(Item(Path("x"), "x", {"=a": "1"}), (score(1.0), score(2.0)))
    assert columns.label_of(result) == columns.label_in(columns.row_of(result)) == "ai"

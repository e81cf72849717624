"""Results: what one detector says stays within reach, and attention is where there is some."""

from pathlib import Path

import numpy as np
import pytest

from spai_runtime import Layout, Result, Score, Tiles
from spai_runtime.errors import ImageError
from spai_runtime.files.sources import Item
from spai_runtime.views import TenCrop

TILES = Tiles(8, 8, 0)
ITEM = Item(Path("a.jpg"), "a.jpg")


def score(layout: Layout, *, attention: bool) -> Score:
    return Score(0.5, 0.0, "real", np.arange(len(layout), dtype=np.float32) if attention else None, layout, 0.0)


def test_attention_lies_as_the_tiles_do() -> None:
    grid = score(TILES.layout(16, 24), attention=True).attention_grid
    np.testing.assert_array_equal(grid, [[0, 1, 2], [3, 4, 5]])


def test_where_there_is_no_grid() -> None:
    assert score(TILES.layout(16, 24), attention=False).attention_grid is None
    assert score(Tiles(8, 8, 9).layout(16, 24), attention=True).attention_grid is None


def test_the_score_of_one_detector() -> None:
    one = score(TILES.layout(16, 24), attention=False)
    assert Result(ITEM, (one,)).score is one
    assert Result(ITEM, (None,), error="bad").score is None
    assert Result(ITEM, error="bad").score is None
    with pytest.raises(AssertionError):
        _ = Result(ITEM, (one, one)).score


def test_a_heat_map_says_why_there_is_none() -> None:
    np.testing.assert_array_equal(
        score(TILES.layout(16, 24), attention=True).heat_map(),
        score(TILES.layout(16, 24), attention=True).attention_grid,
    )
    with pytest.raises(ImageError, match="this detector does not say how much it looked at each view"):
        score(TILES.layout(16, 24), attention=False).heat_map()
    with pytest.raises(ImageError, match="there is no heat map of 10 crops, which lie over one another"):
        score(TenCrop(8).layout(16, 24), attention=True).heat_map()

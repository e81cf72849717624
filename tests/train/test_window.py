"""Windows against torchvision's own draws, and plain crops against slices and numpy's padding."""

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop

from spai_runtime.images import Picture
from spai_train.data.window import draw_window, plain_crop
from tests.support.images import pixels

SHARE, RATIO = (0.2, 1.0), (3 / 4, 4 / 3)
DRAWS = 2000


def theirs(height: int, width: int) -> tuple[int, int, int, int]:
    """torchvision's, as top, left, bottom, right."""
    meta = torch.empty(3, height, width, device="meta")
    top, left, rows, columns = RandomResizedCrop.get_params(meta, list(SHARE), list(RATIO))
    return top, left, top + rows, left + columns


@pytest.mark.parametrize(("height", "width"), [(300, 500), (400, 400)])
def test_windows_are_distributed_as_torchvisions(height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        expected = np.array([theirs(height, width) for _ in range(DRAWS)]).T
    drawn = np.array([draw_window(height, width, SHARE, RATIO, rng) for _ in range(DRAWS)]).T
    for ours, reference in zip(measured(drawn), measured(expected), strict=True):
        assert ks_2samp(ours, reference).pvalue > 1e-3


def measured(windows: np.ndarray) -> tuple[np.ndarray, ...]:
    top, left, bottom, right = windows
    return (bottom - top) * (right - left), (right - left) / (bottom - top), top, left


def test_windows_keep_to_their_limits_and_reach_them() -> None:
    rng = np.random.default_rng(1)
    windows = np.array([draw_window(300, 400, SHARE, RATIO, rng) for _ in range(DRAWS)]).T
    top, left, bottom, right = windows
    area, ratio, *_ = measured(windows)
    assert top.min() >= 0 <= left.min()
    assert bottom.max() <= 300
    assert right.max() <= 400
    rounding = 1 / 100  # of half a pixel in sides of more than 100
    assert 0.2 * (1 - rounding) <= area.min() / 120_000 < 0.21
    assert 0.9 < area.max() / 120_000 <= 1
    assert 0.75 * (1 - rounding) <= ratio.min() < 0.77
    assert 1.30 < ratio.max() <= 4 / 3 * (1 + rounding)


@pytest.mark.parametrize("sides", [(1, 3000), (3000, 1), (10, 2000), (1500, 7)])
def test_narrow_image_gives_torchvisions_window_in_its_middle(sides: tuple[int, int]) -> None:
    assert draw_window(*sides, SHARE, RATIO, np.random.default_rng(0)) == theirs(*sides)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("ratio", [RATIO, (0.01, 0.02), (50, 60)])
def test_single_pixel_is_its_own_window(ratio: tuple[float, float], seed: int) -> None:
    assert draw_window(1, 1, SHARE, ratio, np.random.default_rng(seed)) == (0, 0, 1, 1)


def test_plain_crop_is_a_slice_from_anywhere() -> None:
    """Pixels say where they are: red is the row and green the column."""
    where = np.zeros((14, 17, 3), np.uint8)
    where[:, :, 0], where[:, :, 1] = np.indices((14, 17))
    picture, rng, corners = Picture.from_array(where), np.random.default_rng(0), set()
    for _ in range(600):
        view = plain_crop(picture, 10, rng)
        top, left, _ = view[0, 0].tolist()
        np.testing.assert_array_equal(view, where[top : top + 10, left : left + 10])
        corners.add((top, left))
    assert corners == {(top, left) for top in range(5) for left in range(8)}


def test_small_image_is_padded_by_reflection_more_after_than_before() -> None:
    image = pixels(20, 25)
    expected = np.pad(image, ((6, 6), (3, 4), (0, 0)), "reflect")
    np.testing.assert_array_equal(plain_crop(Picture.from_array(image), 32, np.random.default_rng(0)), expected)


def test_one_short_side_is_padded_and_the_other_cut() -> None:
    image = pixels(9, 60)
    padded = np.pad(image, ((3, 4), (0, 0), (0, 0)), "reflect")
    view = plain_crop(Picture.from_array(image), 16, np.random.default_rng(2))
    assert any(np.array_equal(view, padded[:, left : left + 16]) for left in range(45))

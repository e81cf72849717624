"""Windows: what an encoder says of an image piece by piece is what it says of all of it."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spai_runtime.engines.base import Contract, HostEngine
from spai_runtime.errors import EngineError, ImageError
from spai_runtime.images import Picture
from spai_runtime.manifest import Manifest, Threshold
from spai_runtime.scoring.batchers import encode
from spai_runtime.views import WholeImage, Window
from spai_runtime.views.policy import MOST_VIEWS
from tests.support.images import pixels

WINDOW = Window(side=20, halo=4, patch=4, stride=2)
LENGTHS = st.integers(1, 70)


class Neighbours(HostEngine):
    """A network by hand: a cell is the sum of the pixels that are at most `halo` away, of those that it is given."""

    device, label, batch_size = "cpu", "by hand", 1

    def __init__(self, window: Window) -> None:
        self._window = window
        self.sides: list[tuple[int, ...]] = []

    def cells(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        reach, stride = self._window.halo, self._window.stride
        padded = np.pad(image.astype(float), ((reach, reach), (reach, reach), (0, 0)))
        views = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1, 2 * reach + 1), axis=(0, 1))
        return views[::stride, ::stride].sum(axis=(-1, -2))

    def run(self, batch: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        assert len(batch) == 1
        self.sides.append(batch.shape[1:3])
        cells, across = self.cells(batch[0]), self._window.patch // self._window.stride
        rows, columns = (math.ceil(side / across) for side in cells.shape[:2])
        whole = np.zeros((rows * across, columns * across, 3))
        whole[: cells.shape[0], : cells.shape[1]] = cells
        patches = whole.reshape(rows, across, columns, across, 3).mean(axis=(1, 3))
        return [patches.reshape(-1, 3).astype(np.float32)]


def manifest(window: Window, features: int = 3) -> Manifest:
    return Manifest("x", "x", WholeImage(window=window), features, Threshold(0.5, "a test"), attention=False)


@given(height=LENGTHS, width=LENGTHS)
@example(height=20, width=21)  # one window, and one that is a pixel too long for it
@example(height=32, width=33)
@example(height=1, width=70)
@settings(max_examples=60, deadline=None)
def test_windows_are_the_whole_image(height: int, width: int) -> None:
    image, engine = pixels(height, width), Neighbours(WINDOW)
    encoding = encode(engine, manifest(WINDOW), Picture.from_array(image))
    np.testing.assert_allclose(encoding.features[0], engine.cells(image).mean(axis=(0, 1)), rtol=1e-6)
    assert len(engine.sides) == WINDOW.count(height, width)
    assert max(map(max, engine.sides)) <= WINDOW.side
    assert encoding.done and not encoding.plane.held


@given(height=LENGTHS, width=LENGTHS, halo=st.integers(0, 3), beyond=st.integers(1, 4), patch=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_every_patch_is_kept_once(height: int, width: int, halo: int, beyond: int, patch: int) -> None:
    window = Window((2 * halo + beyond) * patch, halo * patch, patch, 1)
    rows, columns = window.grid(height, width)
    kept = np.zeros((rows, columns), int)
    for down, across in window.pieces(height, width):
        assert down.start % patch == across.start % patch == 0
        inside = np.zeros(window.grid(down.stop - down.start, across.stop - across.start), int)
        inside[down.kept, across.kept] = 1
        top, left = down.start // patch, across.start // patch
        kept[top : top + inside.shape[0], left : left + inside.shape[1]] += inside
    assert (kept == 1).all()


def test_an_image_that_fits_is_one_window() -> None:
    assert [WINDOW.count(*sides) for sides in ((1, 1), (20, 20), (20, 21), (33, 33))] == [1, 1, 2, 9]


def test_the_contract_counts_patches() -> None:
    contract = Contract.encoder((None, None), 7, WINDOW)
    assert contract.output_shapes((2, 9, 4, 3)) == [(2 * 3 * 1, 7)]
    assert str(contract.outputs[0]) == "features float32 (patches, 7)"
    assert msgspec.convert(msgspec.to_builtins(contract), Contract) == contract  # as a child process gets it


@pytest.mark.parametrize(
    "fields",
    [
        {"side": 8},  # two halos, and nothing between them
        {"side": 22},
        {"side": 8196},
        {"halo": 6},
        {"halo": -4},
        {"stride": 3},
        {"stride": 0},
        {"patch": 0},
        {"patch": 2**40},
    ],
)
def test_windows_that_make_no_sense(fields: dict[str, int]) -> None:
    with pytest.raises(msgspec.ValidationError, match="windows of side"):
        msgspec.convert({**msgspec.to_builtins(WINDOW), **fields}, Window)


def test_too_many_windows_and_too_many_patches() -> None:
    small = WholeImage(window=Window(3, 1, 1, 1))
    assert len(small.layout(258, 258)) == 1
    with pytest.raises(ImageError, match=f"have 65792 windows, and at most {MOST_VIEWS} are looked at; crop it"):
        small.layout(258, 259)
    with pytest.raises(ImageError, match="make 1000000 patches at once of 1000 features each, more than 1 GiB"):
        manifest(Window(1000, 1, 1, 1), 1000).layout(2000, 1000)


def test_a_window_that_the_engine_does_not_take_is_the_images_error() -> None:
    class Fails(Neighbours):
        def run(self, batch: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
            if self.sides:
                raise EngineError("no memory")
            return super().run(batch)

    encoding = encode(Fails(WINDOW), manifest(WINDOW), Picture.from_array(pixels(40, 20)))
    assert encoding.error == "no memory"
    assert not encoding.plane.held

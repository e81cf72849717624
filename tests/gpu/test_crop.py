"""The kernel's own text, compiled for the CPU, cuts what `Layout` cuts, to the bit."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spai_runtime.engines.cuda.crop import COLUMNS, crop_kernel, fill
from spai_runtime.errors import EngineError
from spai_runtime.images import Picture
from spai_runtime.views import Layout, Tiles
from tests.gpu.fakes import fake_cupy
from tests.support.images import pixels

Image = NDArray[np.uint8]

SIDES = st.integers(1, 70) | st.sampled_from([1, 2, 3, 15, 16, 17, 31, 32, 33])


@pytest.fixture(autouse=True, scope="module")
def cupy() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        fake_cupy.install(patch)
        import cupy  # noqa: PLC0415  the fake

        yield cupy


def cut_on_gpu(images: Sequence[Image], layouts: Sequence[Layout], bucket: int | None = None) -> Image:
    """All views of all images in one launch, (V, S, S, 3)."""
    import cupy  # noqa: PLC0415  the fake

    with cupy.cuda.Stream(non_blocking=True) as stream:
        arrays = [cupy.asarray(cupy.empty(image.shape, np.uint8)) for image in images]
        rows = []
        for image, array, layout in zip(images, arrays, layouts, strict=True):
            array.set(image, stream=stream)
            rows += [(array.data.ptr, *image.shape[:2], int(top), int(left)) for top, left in layout.origins]
        table = np.empty((bucket or len(rows), COLUMNS), np.int64)
        fill(table, rows)
        on_gpu, views = cupy.empty(table.shape, np.int64), cupy.empty((len(table), *[layouts[0].size] * 2, 3), np.uint8)
        on_gpu.set(table, stream=stream)
        crop_kernel()(on_gpu, layouts[0].size, views)
        return np.array(views.get(stream=stream))


def cut_on_host(images: Sequence[Image], layouts: Sequence[Layout]) -> Image:
    stacks = [layout.stack(Picture.from_array(image)) for image, layout in zip(images, layouts, strict=True)]
    return np.concatenate(stacks)


@given(sizes=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=4), stride=st.sampled_from([7, 16, 40]))
@example(sizes=[(1, 1), (1, 70), (70, 1)], stride=16)  # slivers: many periods of one or two pixels
@example(sizes=[(2, 2), (3, 2), (2, 33)], stride=16)
@example(sizes=[(16, 16), (15, 17), (32, 32)], stride=16)  # exactly a view, one pixel less and more, four tiles
@settings(max_examples=60, deadline=None)
def test_views_of_many_images(sizes: list[tuple[int, int]], stride: int) -> None:
    images = [pixels(height, width, seed) for seed, (height, width) in enumerate(sizes)]
    layouts = [Tiles(16, stride, 4).layout(height, width) for height, width in sizes]
    np.testing.assert_array_equal(cut_on_gpu(images, layouts), cut_on_host(images, layouts))


@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    origins=st.lists(st.tuples(st.integers(-300, 300), st.integers(-300, 300)), min_size=1, max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_origins_anywhere(height: int, width: int, origins: list[tuple[int, int]]) -> None:
    image, layout = pixels(height, width), Layout(height, width, 5, np.array(origins), None)
    np.testing.assert_array_equal(cut_on_gpu([image], [layout]), cut_on_host([image], [layout]))


def test_published_views() -> None:
    """Sides of 224, where the offset of the last byte of a batch is not small."""
    images = [pixels(460, 700), pixels(223, 1000)]
    layouts = [Tiles().layout(*image.shape[:2]) for image in images]
    np.testing.assert_array_equal(cut_on_gpu(images, layouts), cut_on_host(images, layouts))


def test_a_bucket_is_filled_with_its_last_view() -> None:
    image = pixels(40, 40)
    layout = Tiles(16, 16, 4).layout(40, 40)
    expected = cut_on_host([image], [layout])
    views = cut_on_gpu([image], [layout], bucket=8)
    np.testing.assert_array_equal(views, expected[[0, 1, 2, 3, 3, 3, 3, 3]])


def test_a_compiler_that_does_not_work(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(*_: object, **__: object) -> Any:
        def compiled(*_: object) -> None:
            raise OSError("cannot open source file cuda_fp16.h\nmore")

        return compiled

    monkeypatch.setattr(cupy, "ElementwiseKernel", kernel)
    with pytest.raises(
        EngineError, match=r"cannot compile for this GPU \(cannot open .*h\): pip install 'spai-toolkit"
    ):
        crop_kernel()


def test_too_little_memory_is_not_the_compilers_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = fake_cupy.install(monkeypatch)
    machine.fail_allocation()
    with pytest.raises(MemoryError):
        crop_kernel()

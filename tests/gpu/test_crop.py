"""The kernel's own text, compiled for the CPU, crops what `Layout` and numpy crop, to the bit."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spai_runtime.engines.cuda.crop import COLUMNS, PADDINGS, crop_kernel, fill
from spai_runtime.errors import EngineError
from spai_runtime.images import Picture
from spai_runtime.views import CentreCrop, Layout, TenCrop, Tiles, WholeImage
from tests.gpu.fakes import fake_cupy
from tests.support.images import pixels
from tests.support.padded import pad

Image = NDArray[np.uint8]

SIDES = st.integers(1, 70) | st.sampled_from([1, 2, 3, 15, 16, 17, 31, 32, 33])


@pytest.fixture(autouse=True, scope="module")
def cupy() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        fake_cupy.install(patch)
        import cupy  # noqa: PLC0415  the fake

        yield cupy


def crop_on_gpu(images: Sequence[Image], layouts: Sequence[Layout], bucket: int | None = None) -> Image:
    """All views of all images in one launch, (V, H, W, 3)."""
    import cupy  # noqa: PLC0415  the fake

    with cupy.cuda.Stream(non_blocking=True) as stream:
        arrays = [cupy.asarray(cupy.empty(image.shape, np.uint8)) for image in images]
        rows = []
        for image, array, layout in zip(images, arrays, layouts, strict=True):
            array.set(image, stream=stream)
            rows += [
                (array.data.ptr, *image.shape[:2], int(top), int(left), int(flipped), PADDINGS[layout.padding])
                for (top, left), flipped in zip(layout.origins, layout.flips, strict=True)
            ]
        table = np.empty((bucket or len(rows), COLUMNS), np.int64)
        fill(table, rows)
        on_gpu, views = cupy.empty(table.shape, np.int64), cupy.empty((len(table), *layouts[0].shape, 3), np.uint8)
        on_gpu.set(table, stream=stream)
        crop_kernel()(on_gpu, *layouts[0].shape, views)
        return np.array(views.get(stream=stream))


def crop_on_host(images: Sequence[Image], layouts: Sequence[Layout]) -> Image:
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
    np.testing.assert_array_equal(crop_on_gpu(images, layouts), crop_on_host(images, layouts))


@st.composite
def crops_anywhere(draw: st.DrawFn) -> Layout:
    """Of a small image: any origins, each mirrored or not, and views of any shape."""
    height, width = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    places = draw(st.lists(st.tuples(st.integers(-300, 300), st.integers(-300, 300)), min_size=1, max_size=5))
    flips = draw(st.lists(st.booleans(), min_size=len(places), max_size=len(places)))
    shape = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    return Layout(height, width, shape, np.array(places), None, np.array(flips), draw(st.sampled_from(list(PADDINGS))))


def brute_force(image: Image, layout: Layout) -> Image:
    """Each view from an image that numpy padded on all sides."""
    whole, (height, width) = pad(image, [(320, 320)] * 2, layout.padding), layout.shape
    views = [whole[top + 320 :, left + 320 :][:height, :width] for top, left in layout.origins]
    return np.stack([view[:, ::-1] if flipped else view for view, flipped in zip(views, layout.flips, strict=True)])


@given(layout=crops_anywhere())
@settings(max_examples=150, deadline=None)
def test_any_crops(layout: Layout) -> None:
    image = pixels(layout.height, layout.width)
    expected = brute_force(image, layout)
    np.testing.assert_array_equal(crop_on_gpu([image], [layout]), expected)
    np.testing.assert_array_equal(crop_on_host([image], [layout]), expected)


def test_images_whose_paddings_differ() -> None:
    """In one launch: what a row says holds for its view alone."""
    policies = CentreCrop(16, padding="wrap"), TenCrop(16, padding="zero"), Tiles(16), TenCrop(16, padding="reflect")
    images = [pixels(height, 15, height) for height in (3, 20, 40, 9)]
    layouts = [policy.layout(*image.shape[:2]) for policy, image in zip(policies, images, strict=True)]
    np.testing.assert_array_equal(crop_on_gpu(images, layouts), crop_on_host(images, layouts))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 300), (300, 7), (61, 83)])
def test_whole_images(height: int, width: int) -> None:
    image, layout = pixels(height, width), WholeImage().layout(height, width)
    np.testing.assert_array_equal(crop_on_gpu([image], [layout]), image[None])


def test_published_views() -> None:
    """Sides of 224, where the offset of the last byte of a batch is not small."""
    images = [pixels(460, 700), pixels(223, 1000)]
    layouts = [Tiles().layout(*image.shape[:2]) for image in images]
    np.testing.assert_array_equal(crop_on_gpu(images, layouts), crop_on_host(images, layouts))


def test_a_bucket_is_filled_with_its_last_view() -> None:
    image = pixels(40, 40)
    layout = Tiles(16, 16, 4).layout(40, 40)
    expected = crop_on_host([image], [layout])
    views = crop_on_gpu([image], [layout], bucket=8)
    np.testing.assert_array_equal(views, expected[[0, 1, 2, 3, 3, 3, 3, 3]])


def test_a_compiler_that_does_not_work(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(*_: object, **__: object) -> Any:
        def compiled(*_: object) -> None:
            raise OSError("cannot open source file cuda_fp16.h\nmore")

        return compiled

    monkeypatch.setattr(cupy, "ElementwiseKernel", kernel)
    with pytest.raises(EngineError, match=r"cannot compile for this GPU \(cannot open .*h\): pip install '\.\[gpu\]'"):
        crop_kernel()


def test_too_little_memory_is_not_the_compilers_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = fake_cupy.install(monkeypatch)
    machine.fail_allocation()
    with pytest.raises(MemoryError):
        crop_kernel()


@pytest.mark.parametrize(
    ("status", "message"), [(222, "cannot compile for this GPU .*unsupported toolchain"), (46, "")]
)
def test_the_driver_does_not_take_the_kernel(monkeypatch: pytest.MonkeyPatch, status: int, message: str) -> None:
    """Its code is the compiler's fault, the rest the GPU's: whoever calls makes an engine's error of that."""
    fake_cupy.install(monkeypatch)
    import cupy  # noqa: PLC0415  the fake

    failed = cupy.cuda.driver.CUDADriverError

    def launched(*_: object) -> None:
        raise failed(status)

    monkeypatch.setattr(cupy, "ElementwiseKernel", lambda *_, **__: launched)
    with pytest.raises(EngineError if message else failed, match=message or None):
        crop_kernel()

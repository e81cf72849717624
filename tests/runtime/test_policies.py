"""Every view policy against torchvision's crops of PIL images, and as JSON."""

import json
import tracemalloc
from math import prod
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode
from torchvision.transforms import Resize as TorchResize
from torchvision.transforms import TenCrop as TorchTenCrop
from torchvision.transforms.functional import center_crop, five_crop, ten_crop

from spai_runtime.errors import ImageError
from spai_runtime.images import Picture
from spai_runtime.views import CentreCrop, Padding, Resize, TenCrop, Tiles, ViewPolicy, WholeImage, Window
from spai_runtime.views.policy import MOST_VIEWS
from tests.support.images import pixels
from tests.support.padded import PADDINGS, padded

Views = NDArray[np.uint8]

SIDES = st.integers(1, 70) | st.sampled_from([1, 2, 3, 31, 32, 33])
SIZES = st.integers(1, 50) | st.sampled_from([1, 2, 31, 32, 33])

RESIZES = st.builds(
    Resize,
    st.integers(1, 60),
    st.sampled_from(["shorter", "square"]),
    st.sampled_from(["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]),
)
OPTIONAL = st.none() | RESIZES
POLICIES = st.one_of(
    st.builds(Tiles, st.integers(1, 500), st.integers(1, 500), st.integers(0, 9), st.sampled_from(PADDINGS), OPTIONAL),
    st.builds(CentreCrop, st.integers(1, 500), OPTIONAL, st.sampled_from(PADDINGS)),
    st.builds(TenCrop, st.integers(1, 500), OPTIONAL, st.sampled_from(PADDINGS)),
    st.builds(WholeImage, OPTIONAL),
)


class Described(msgspec.Struct):
    """As detector.json holds a policy."""

    views: ViewPolicy


def views_of(policy: ViewPolicy, image: Views) -> Views:
    """As a detector takes them: the image is resized, then its views are cropped."""
    picture = Picture.from_array(image)
    layout = policy.layout(*image.shape[:2])
    if policy.resize:
        picture = picture.resized(layout.height, layout.width, policy.resize.filter)
    assert (layout.height, layout.width) == (picture.height, picture.width)
    return layout.stack(picture)


def stacked(*crops: Image.Image) -> Views:
    return np.stack([np.asarray(crop) for crop in crops])


@given(height=SIDES, width=SIDES, size=SIZES)
@example(height=1, width=1, size=33)
@example(height=33, width=1, size=32)
@example(height=35, width=31, size=32)  # rounds half an offset and pads an odd pixel
@settings(max_examples=150, deadline=None)
def test_centre_crop_is_torchvisions(height: int, width: int, size: int) -> None:
    image = pixels(height, width)
    expected = stacked(center_crop(Image.fromarray(image), [size, size]))
    np.testing.assert_array_equal(views_of(CentreCrop(size), image), expected)


@given(height=SIDES, width=SIDES, size=SIZES, padding=st.sampled_from(PADDINGS))
@settings(max_examples=100, deadline=None)
def test_centre_crop_of_a_padded_image(height: int, width: int, size: int, padding: Padding) -> None:
    image = pixels(height, width)
    expected = stacked(center_crop(Image.fromarray(padded(image, size, padding)), [size, size]))
    np.testing.assert_array_equal(views_of(CentreCrop(size, padding=padding), image), expected)


@given(height=SIDES, width=SIDES, size=SIZES, padding=st.sampled_from(PADDINGS))
@example(height=33, width=33, size=32, padding="zero")  # half a pixel of room: the mirrored centre lies elsewhere
@example(height=33, width=35, size=32, padding="zero")
@example(height=29, width=29, size=32, padding="wrap")  # one pixel more after than before, then mirrored
@settings(max_examples=150, deadline=None)
def test_ten_crop_is_torchvisions(height: int, width: int, size: int, padding: Padding) -> None:
    image = pixels(height, width)
    expected = stacked(*ten_crop(Image.fromarray(padded(image, size, padding)), [size, size]))
    np.testing.assert_array_equal(views_of(TenCrop(size, padding=padding), image), expected)


@given(height=SIDES, width=SIDES, size=SIZES, padding=st.sampled_from(PADDINGS))
@settings(max_examples=100, deadline=None)
def test_five_crop_is_torchvisions(height: int, width: int, size: int, padding: Padding) -> None:
    image, policy = pixels(height, width), Tiles(size, size, 10**9, padding)
    expected = stacked(*five_crop(Image.fromarray(padded(image, size, padding)), [size, size]))
    np.testing.assert_array_equal(views_of(policy, image), expected)


@given(height=SIDES, width=SIDES, size=SIZES, padding=st.sampled_from(PADDINGS))
@settings(max_examples=100, deadline=None)
def test_tiles_of_a_padded_image(height: int, width: int, size: int, padding: Padding) -> None:
    image = pixels(height, width)
    whole = padded(image, size, padding)
    rows, columns = (side // size for side in whole.shape[:2])
    expected = whole[: rows * size, : columns * size].reshape(rows, size, columns, size, 3).swapaxes(1, 2)
    np.testing.assert_array_equal(views_of(Tiles(size, size, 0, padding), image), expected.reshape(-1, size, size, 3))


@given(height=SIDES, width=SIDES, size=SIZES, resize=RESIZES)
@settings(max_examples=100, deadline=None)
def test_crops_behind_a_resize_are_torchvisions(height: int, width: int, size: int, resize: Resize) -> None:
    image = pixels(height, width)
    side = resize.side if resize.rule == "shorter" else (resize.side, resize.side)
    resized = TorchResize(side, InterpolationMode(resize.filter))
    expected = Compose([resized, CenterCrop(size)])(Image.fromarray(image))
    np.testing.assert_array_equal(views_of(CentreCrop(size, resize), image), stacked(expected))
    whole = resized(Image.fromarray(image))
    assume(prod(whole.size) <= MOST_VIEWS)  # as many tiles of one pixel are refused
    np.testing.assert_array_equal(views_of(WholeImage(resize), image), stacked(whole))
    fitting = min(size, *whole.size)  # torchvision's ten crops are of no image that is smaller
    np.testing.assert_array_equal(views_of(TenCrop(fitting, resize), image), stacked(*TorchTenCrop(fitting)(whole)))
    np.testing.assert_array_equal(
        views_of(Tiles(fitting, fitting, 10**9, resize=resize), image), stacked(*five_crop(whole, [fitting, fitting]))
    )


@given(height=st.integers(1, 300), width=st.integers(1, 300))
@example(height=1, width=1)
@settings(max_examples=50, deadline=None)
def test_a_whole_image_of_any_size(height: int, width: int) -> None:
    image = pixels(height, width)
    np.testing.assert_array_equal(views_of(WholeImage(), image), image[None])


@given(policy=POLICIES, height=SIDES, width=SIDES)
@settings(max_examples=100, deadline=None)
def test_the_shape_is_that_of_the_layout(policy: ViewPolicy, height: int, width: int) -> None:
    layout = policy.layout(height, width)
    own = layout.height, layout.width
    assert layout.shape == tuple(fixed or side for fixed, side in zip(policy.shape, own, strict=True))


@pytest.mark.parametrize(
    ("policy", "shape"),
    [
        (Tiles(32), (32, 32)),
        (CentreCrop(32, Resize(40)), (32, 32)),
        (TenCrop(32), (32, 32)),
        (WholeImage(), (None, None)),
        (WholeImage(Resize(40)), (None, None)),
        (WholeImage(Resize(40, "square")), (40, 40)),
    ],
)
def test_shapes(policy: ViewPolicy, shape: tuple[int | None, int | None]) -> None:
    assert policy.shape == shape


def test_no_crops_are_a_grid() -> None:
    assert [policy.layout(90, 90).grid for policy in (CentreCrop(30), TenCrop(30), WholeImage())] == [None] * 3


@given(policy=POLICIES)
@settings(max_examples=100, deadline=None)
def test_a_policy_is_what_its_json_says(policy: ViewPolicy) -> None:
    encoded = msgspec.json.encode(Described(policy))
    assert msgspec.json.decode(encoded, type=Described).views == policy


SHORTER = {"side": 40, "rule": "shorter", "filter": "bicubic"}


@pytest.mark.parametrize(
    ("policy", "fields"),
    [
        (CentreCrop(32), {"policy": "centre_crop", "size": 32, "resize": None, "padding": "zero"}),
        (TenCrop(32, Resize(40)), {"policy": "ten_crop", "size": 32, "resize": SHORTER, "padding": "zero"}),
        (WholeImage(), {"policy": "whole", "resize": None, "window": None}),
        (
            WholeImage(window=Window(20, 4, 4, 2)),
            {"policy": "whole", "resize": None, "window": {"side": 20, "halo": 4, "patch": 4, "stride": 2}},
        ),
        (
            Tiles(),
            {"policy": "tiles", "size": 224, "stride": 224, "minimum": 4, "padding": "reflect", "resize": None},
        ),
    ],
)
def test_json_of_each_policy(policy: ViewPolicy, fields: dict[str, Any]) -> None:
    """Other programs read it, and older versions wrote it."""
    assert json.loads(msgspec.json.encode(policy)) == fields


def test_json_of_tiles_before_they_had_a_padding() -> None:
    content = b'{"views": {"size": 32, "stride": 16, "minimum": 3, "policy": "tiles"}}'
    tiles = msgspec.json.decode(content, type=Described).views
    assert tiles == Tiles(32, 16, 3, padding="reflect", resize=None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"policy": "tiles", "size": 0}, r"both must be at least 1 and at most 8192 - at `\$.views`"),
        ({"policy": "tiles", "stride": 0}, r"both must be at least 1 and at most 8192 - at `\$.views`"),
        (
            {"policy": "centre_crop", "size": 0},
            r"views of side 0: it must be at least 1 and at most 8192 - at `\$.views`",
        ),
        (
            {"policy": "ten_crop", "size": -2},
            r"views of side -2: it must be at least 1 and at most 8192 - at `\$.views`",
        ),
        ({"policy": "ten_crop"}, r"missing required field `size` - at `\$.views`"),
        ({"policy": "ten_crop", "size": 8, "padding": "edge"}, r"'edge' - at `\$.views.padding`"),
        (
            {"policy": "whole", "resize": {"side": 0}},
            r"a side of 0: it must be at least 1 and at most 8192 - at `\$.views.resize`",
        ),
        ({"policy": "whole", "resize": {"side": 9, "rule": "longer"}}, r"'longer' - at `\$.views.resize.rule`"),
        ({"policy": "whole", "resize": {"side": 9, "filter": "box "}}, r"'box ' - at `\$.views.resize.filter`"),
        ({"policy": "hexagons"}, r"'hexagons' - at `\$.views.policy`"),
    ],
)
def test_nonsense_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.json.decode(json.dumps({"views": fields}), type=Described)


@pytest.mark.parametrize(
    ("policy", "fits", "passes", "change"),
    [
        (Tiles(32), (1, 100), (1, 101), "padded"),
        (CentreCrop(32), (100, 1), (101, 1), "padded"),
        (TenCrop(32), (1, 100), (1, 101), "padded"),
        (WholeImage(), (32, 100), (32, 101), "padded"),
        (WholeImage(Resize(32)), (1, 3), (1, 4), "resized"),
        (Tiles(32, resize=Resize(8)), (2, 25), (2, 26), "resized"),
    ],
)
def test_the_limit_of_decompression_bombs(
    monkeypatch: pytest.MonkeyPatch, policy: ViewPolicy, fits: tuple[int, int], passes: tuple[int, int], change: str
) -> None:
    """3200 pixels after the resize and the padding; which of the two is named."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1600)
    assert len(policy.layout(*fits)) > 0
    height, width = passes
    message = f"^{width}×{height} pixels would be {change} past the limit of 3200 pixels; crop it$"
    with pytest.raises(ImageError, match=message):
        policy.layout(height, width)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert len(policy.layout(height, width)) > 0


def test_squares_of_any_image_are_within_the_limit_or_none_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1600)
    for height, width in ((1, 1), (9, 9999)):
        assert len(WholeImage(Resize(56, "square")).layout(height, width)) == 1  # 3136
        with pytest.raises(ImageError, match="resized past"):
            WholeImage(Resize(57, "square")).layout(height, width)  # 3249


def test_tiles_of_a_bomb_are_not_counted() -> None:
    """A header may claim a line of pixels whose tiles, once it is resized, fill the memory."""
    tracemalloc.start()
    with pytest.raises(ImageError, match="resized past"):
        Tiles(32, 32, resize=Resize(32)).layout(1, 10_000_000)  # 80 MB of offsets
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20

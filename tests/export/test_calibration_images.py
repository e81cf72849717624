"""How many images scales want."""

import pytest

from spai_export.calibration import few_images


@pytest.mark.parametrize(("found", "said"), [(1, True), (499, True), (500, False), (5000, False)])
def test_fewer_images_than_are_wanted_are_told_with_the_numbers(found: int, said: bool) -> None:
    sentences = few_images(found, 500, 64)
    assert [line.partition(":")[0] for line in sentences] == [
        f"scales were found on 64 views of {found} images, and 500 images are wanted"
    ] * said

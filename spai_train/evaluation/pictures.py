"""Pictures whose pixels are changed when they are decoded: perturbed, or resized as upstream's `--resize-to` does."""

from collections.abc import Callable

import PIL.Image

from spai_runtime.errors import ImageError
from spai_runtime.images import Picture, pixel_limit
from spai_train.data import Image
from spai_train.data.degrade import resize
from spai_train.data.perturb import Kind, Perturbation

_WORKING_BYTES = 52  # a pixel beside the decoded ones: RGB, and float32 planes of a blur or of a scale


class ChangedPicture(Picture):
    """A picture whose pixels are changed when it is decoded; its new size and its memory are known before.

    :param picture: the picture whose pixels are changed
    :param height, width: the sides after the change
    """

    def __init__(self, picture: Picture, height: int, width: int, change: Callable[[Image], Image]) -> None:
        self.height, self.width = height, width
        self._source: Picture | None = picture
        self._change = change

    @property
    def nbytes(self) -> int:
        return 4 * self.width * self.height

    @property
    def decoding_nbytes(self) -> int:
        """See `Picture`: for a moment, the picture before the change is in memory too, in RGB and in planes."""
        if self._source is None:
            return self.nbytes
        before = self._source.width * self._source.height
        changed = self._source.nbytes + _WORKING_BYTES * max(before, self.width * self.height)
        return max(self._source.decoding_nbytes, changed)

    def load(self) -> Picture:
        """Decodes and changes. :raises ImageError: data are truncated, or too large for a perturbation's format"""
        assert self._source is not None
        foretold = self.width, self.height
        super().__init__(PIL.Image.fromarray(self._change(self._source.load().array())))
        assert (self.width, self.height) == foretold
        self._source = None
        return self


class PerturbedPicture(ChangedPicture):
    """:param seed: it decides the noise"""

    def __init__(self, picture: Picture, perturbation: Perturbation, seed: int) -> None:
        factor = perturbation.level if perturbation.kind is Kind.SCALE else 1
        height, width = (max(1, int(side * factor)) for side in (picture.height, picture.width))
        super().__init__(picture, height, width, lambda pixels: perturbation.apply(pixels, seed))


class ResizedPicture(ChangedPicture):
    """Resizes the shorter side to a length, bilinearly without antialiasing; the other side follows, halves to even.

    That is albumentations' `SmallestMaxSize`, which upstream tests with; a smaller image is enlarged.

    :param side: the length of the shorter side, in pixels
    :raises ImageError: it would pass the limit of decompression bombs
    """

    def __init__(self, picture: Picture, side: int) -> None:
        factor = side / min(picture.height, picture.width)
        height, width = (round(length * factor) for length in (picture.height, picture.width))
        if height * width > pixel_limit():
            raise ImageError(
                f"{picture.width}×{picture.height} pixels would be resized past the limit of {pixel_limit()} pixels"
            )
        super().__init__(picture, height, width, lambda pixels: resize(pixels, height, width))

"""The state of an image for all detectors: it is decoded once, resized once for each size, and uploaded once."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spai_runtime.engines.base import DeviceImage
from spai_runtime.images import Picture
from spai_runtime.scoring.budget import Budget
from spai_runtime.views import Resize

Allocate = Callable[[tuple[int, ...]], NDArray[np.uint8]]
Decode = Callable[[Picture], DeviceImage | None]


@dataclass(eq=False)
class Plane:
    """Pixels that views are cropped from: those of an image as it is, or as some detectors resize it.

    :param height, width: in pixels
    :param picture: the pixels in Pillow's memory, from which the host crops
    :param pixels: (H, W, 3) uint8, from which GPUs fetch
    :param copies: the copy on each GPU that needs one, by the GPU's name
    :param users: the number of encodings that still need the pixels
    """

    height: int
    width: int
    picture: Picture | None = None
    pixels: NDArray[np.uint8] | None = field(default=None, repr=False)
    copies: dict[str, DeviceImage] = field(default_factory=dict, repr=False)
    users: int = 0

    @property
    def nbytes(self) -> int:
        """The memory that the pixels take now; a copy on a GPU counts as what the host would have to send."""
        fetched = 3 * self.height * self.width if self.pixels is not None or self.copies else 0
        return fetched + (self.picture.nbytes if self.picture else 0)

    @property
    def held(self) -> bool:
        """Whether the pixels are there."""
        return self.picture is not None or self.pixels is not None or bool(self.copies)

    def drop(self) -> None:
        """Release the pixels, wherever they are."""
        self.picture = self.pixels = None
        self.copies.clear()


@dataclass(eq=False)
class ImageState:
    """One image from its header on, and the bytes of the budget that it holds.

    :param width, height: in pixels, as stored; None until the header was read
    :param error: the reason why there is no score, in one sentence
    :param planes: the planes, by the resize that makes them; None is the image as it is
    :param allocates: for each plane that a GPU will fetch, what allocates its memory
    :param cropped: the planes that the host crops from
    """

    width: int | None = None
    height: int | None = None
    error: str = ""
    planes: dict[Resize | None, Plane] = field(default_factory=dict)
    allocates: dict[Resize | None, Allocate] = field(default_factory=dict)
    cropped: set[Resize | None] = field(default_factory=set)
    _budget: Budget | None = None
    _taken: int = 0

    def use(self, resize: Resize | None, height: int, width: int, allocate: Allocate | None) -> Plane:
        """The plane for one more encoding.

        :param height, width: those of the plane
        :param allocate: allocates memory that a GPU fetches pixels from; None if the host crops them
        """
        plane = self.planes.setdefault(resize, Plane(height, width))
        plane.users += 1
        if allocate is None:
            self.cropped.add(resize)
        else:
            self.allocates.setdefault(resize, allocate)
        return plane

    def cost(self, picture: Picture) -> int:
        """The bytes that `decode` takes at most, in the decoder or afterwards.

        Before it is resized, a picture may have to be turned into RGB.
        """
        sizes = [plane.height * plane.width for resize, plane in self.planes.items() if resize]
        resized = 4 * (sum(sizes) + picture.height * picture.width) if sizes else 0
        fetched = sum(3 * self.planes[resize].height * self.planes[resize].width for resize in self.allocates)
        return max(picture.decoding_nbytes, picture.nbytes + resized + fetched)

    def decode(self, picture: Picture, decode_on_gpu: Decode | None) -> None:
        """Fill the planes.

        :param picture: opened, not decoded
        :param decode_on_gpu: decodes JPEGs; it returns None for those that Pillow should decode
        :raises ImageError: the data is truncated or corrupt
        """
        original = self.planes.get(None)
        if original and decode_on_gpu and None not in self.cropped:
            image = decode_on_gpu(picture)
            if image is not None:
                original.copies[image.device] = image
        if any(not plane.held for plane in self.planes.values()):
            picture.load()
        for resize, plane in self.planes.items():
            if not plane.held:
                self._fill(resize, plane, picture)
        if original is None or original.picture is None:
            picture.close()

    def take(self, budget: Budget, ticket: int, nbytes: int) -> None:
        """Wait for room; every ticket must come, with 0 if it needs none."""
        budget.take(ticket, nbytes)
        self._budget, self._taken = budget, nbytes

    def settle(self) -> None:
        """Give back what it had of the budget for pixels that it no longer holds."""
        nbytes = sum(plane.nbytes for plane in self.planes.values())
        if self._budget is not None and nbytes != self._taken:
            self._budget.give(self._taken - nbytes)
        self._taken = nbytes

    def release(self, plane: Plane) -> None:
        """Count one encoding less for the plane; after the last one, its pixels are released."""
        plane.users -= 1
        assert plane.users >= 0
        if plane.users == 0:
            plane.drop()
            self.settle()

    def _fill(self, resize: Resize | None, plane: Plane, picture: Picture) -> None:
        resized = picture.resized(plane.height, plane.width, resize.filter) if resize else picture
        if resize in self.allocates:
            plane.pixels = self.allocates[resize]((plane.height, plane.width, 3))
            resized.copy_into(plane.pixels)
        if resize in self.cropped:
            plane.picture = resized
        elif resize:
            resized.close()

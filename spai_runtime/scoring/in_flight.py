"""Batches in flight: the batches on their way through GPUs, as the host sees them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from spai_runtime.engines.base import Crop, DeviceEngine, DeviceLostError, Slot
from spai_runtime.scoring.encoding import Encoding

View = tuple[Encoding, int]  # of an image, by its index in the layout


@dataclass(eq=False)
class BatchInFlight:
    """A slot of a GPU, and the batch in it.

    :param home: the engine that the slot was acquired from
    :param size: the size at which its batch runs
    """

    home: DeviceEngine
    slot: Slot
    size: int
    views: list[View] = field(default_factory=list)

    @property
    def device(self) -> str:
        """The GPU's name."""
        return self.slot.device

    @property
    def done(self) -> bool:
        """Whether `receive` would return at once, or fail."""
        try:
            return self.slot.done()
        except DeviceLostError:
            return True

    def launch(self, views: Sequence[View]) -> None:
        """Launch a batch; before that, send those of its images that are not on the GPU yet.

        :param views: at most `size`
        :raises DeviceMemoryError, DeviceLostError: the batch then still holds the views, which can be taken back
        """
        self.views = list(views)
        self.slot.launch([self._crop(encoding, index) for encoding, index in self.views], self.size)

    def receive(self) -> list[Encoding]:
        """Wait for the batch and give the encodings their features. :returns: the encodings that now have all

        :raises DeviceMemoryError, DeviceLostError: no encoding was given any features then
        """
        done = []
        for (encoding, index), features in zip(self.views, self.slot.wait(), strict=True):
            encoding.receive(index, features)
            if encoding.done:
                done.append(encoding)
        self.views = []
        return done

    def take_back(self) -> list[View]:
        """Take back the views of a batch that failed."""
        views, self.views = self.views, []
        return views

    def _crop(self, encoding: Encoding, index: int) -> Crop:
        plane, layout = encoding.plane, encoding.layout
        image = plane.copies.get(self.device)
        if image is None:
            assert plane.pixels is not None
            image = plane.copies[self.device] = self.slot.upload(plane.pixels)
        top, left = map(int, layout.origins[index])
        return Crop(image, top, left, bool(layout.flips[index]), layout.padding)

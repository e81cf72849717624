"""Batches in flight: the ways of batches through GPUs, as the host sees them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from spai_runtime.engines import Cut, DeviceEngine, DeviceLostError, Slot
from spai_runtime.scoring.batcher import Job

View = tuple[Job, int]  # of an image, by its index in the layout


@dataclass(eq=False)
class BatchInFlight:
    """A slot of a GPU, and the batch in it.

    :param home: that the slot was acquired from
    :param size: that its batch runs at
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
        """Sends off a batch, and before it those of its images that do not lie on the GPU yet.

        :param views: at most `size`
        :raises DeviceMemoryError, DeviceLostError: then it has them all the same, to be taken back
        """
        self.views = list(views)
        self.slot.launch([self._cut(job, index) for job, index in self.views], self.size)

    def receive(self) -> list[Job]:
        """Waits for the batch and gives the jobs their features; :returns: those that have all now

        :raises DeviceMemoryError, DeviceLostError: then no job was given any
        """
        done = []
        for (job, index), features in zip(self.views, self.slot.wait(), strict=True):
            job.receive(index, features)
            if job.done:
                done.append(job)
        self.views = []
        return done

    def take_back(self) -> list[View]:
        """The views that it failed to bring through."""
        views, self.views = self.views, []
        return views

    def _cut(self, job: Job, index: int) -> Cut:
        image = job.images.get(self.device)
        if image is None:
            assert job.pixels is not None
            image = job.images[self.device] = self.slot.upload(job.pixels)
        top, left = map(int, job.layout.origins[index])
        return Cut(image, top, left)

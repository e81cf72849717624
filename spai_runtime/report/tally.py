"""The tally of a report: how many images have which label, and how their scores are distributed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from spai_runtime.report.entry import Entry
from spai_runtime.report.roles import Verdict

BINS = 20  # of a histogram, each 0.05 wide


@dataclass
class Histogram:
    """The scores of one detector, or of several together, as a histogram.

    :param counts: number of images in each of BINS equal bins of [0, 1]; a score of 1 belongs to the last
    """

    title: str
    threshold: float | None
    counts: list[int] = field(default_factory=lambda: [0] * BINS)

    def add(self, verdict: Verdict) -> None:
        """Count a verdict's score, if it has one."""
        if verdict.score is not None:
            self.counts[min(BINS - 1, max(0, int(verdict.score * BINS)))] += 1

    @property
    def most(self) -> int:
        """The number of images in the fullest bin, but at least 1."""
        return max(1, *self.counts)


class Tally:
    """Counts entries as they come.

    :param histograms: one for each detector; and one for all together, if they have a score
    """

    def __init__(self, histograms: Sequence[Histogram], *, fused: bool) -> None:
        self.histograms, self._fused = histograms, fused
        self.labels = Counter[str]()
        self.disagreements = 0

    def add(self, entry: Entry) -> None:
        """Count one image."""
        self.labels[entry.label] += 1
        self.disagreements += entry.disagree
        verdicts = [*entry.verdicts, entry.together] if self._fused else entry.verdicts
        for histogram, verdict in zip(self.histograms, verdicts, strict=True):
            histogram.add(verdict)

    @property
    def images(self) -> int:
        """The number of images."""
        return self.labels.total()

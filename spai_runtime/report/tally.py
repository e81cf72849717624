"""The tally of a report: how many images have which label, and how their scores are distributed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from spai_runtime.report.entry import Entry
from spai_runtime.report.roles import Verdict

BINS = 20  # of a histogram, each 0.05 wide


@dataclass
class Histogram:
    """Scores of one detector, or of several together.

    :param counts: of images in each of BINS equal bins of [0, 1]; a score of 1 lies in the last
    """

    title: str
    threshold: float | None
    counts: list[int] = field(default_factory=lambda: [0] * BINS)

    def add(self, verdict: Verdict) -> None:
        """A score, where there is one."""
        if verdict.score is not None:
            self.counts[min(BINS - 1, max(0, int(verdict.score * BINS)))] += 1

    @property
    def most(self) -> int:
        """In the fullest bin, at least 1."""
        return max(1, *self.counts)


class Tally:
    """Counts entries as they come.

    :param histograms: of each detector; and of all together, where they have a score
    """

    def __init__(self, histograms: Sequence[Histogram], *, fused: bool) -> None:
        self.histograms, self._fused = histograms, fused
        self.labels = Counter[str]()
        self.disagreements = 0

    def add(self, entry: Entry) -> None:
        """One image more."""
        self.labels[entry.label] += 1
        self.disagreements += entry.disagree
        verdicts = [*entry.verdicts, entry.together] if self._fused else entry.verdicts
        for histogram, verdict in zip(self.histograms, verdicts, strict=True):
            histogram.add(verdict)

    @property
    def images(self) -> int:
        """All of them."""
        return self.labels.total()

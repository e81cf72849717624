"""Published tables: what the authors of detectors report of them; each is a data file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spai_runtime.errors import UserError
from spai_train.evaluation.package_data import names_in, read_data
from spai_train.zoo import ZOO

FOLDER = Path(__file__).parent / "published"
NAMES = names_in(FOLDER)
MEAN = "mean"

Values = Mapping[str, float]  # by generator, and MEAN of these; in percent


@dataclass(frozen=True)
class PublishedTable:
    """A table of figures; none were measured here.

    :param source: the paper that they come from
    :param read_in: where they were read
    :param date: the date of the commit that they were read in, or the day of reading
    :param protocol: how they were measured, in words
    :param values: metric → row → generator → percent; a row is a detector, or one of its checkpoints
    :param benchmark: the benchmark here that has this protocol, or "" where none has
    :param threshold: the threshold of accuracies; None where it is not said
    :param of_benchmarks: whether a figure is a mean over a benchmark, and not of a generator
    :param names: a row → what the source calls it, where that is another name
    :param aliases: a generator → what else it is called
    """

    title: str
    source: str
    read_in: str
    date: str
    protocol: str
    values: dict[str, dict[str, dict[str, float]]]
    benchmark: str = ""
    threshold: float | None = None
    of_benchmarks: bool = False
    names: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, list[str]] = field(default_factory=dict)

    @property
    def rows(self) -> list[str]:
        """The rows of all metrics, each once."""
        return list(dict.fromkeys(row for rows in self.values.values() for row in rows))

    def row_called(self, name: str) -> str | None:
        """The row of that name, which may be the row's own or the one that the source prints."""
        return next((row for row in self.rows if name.casefold() in self._names_of(row)), None)

    def described(self, row: str) -> str:
        """The row's name, and the source's where that is another one."""
        return f"{row} ({self.names[row]})" if row in self.names else row

    def _names_of(self, row: str) -> set[str]:
        return {row.casefold(), self.names.get(row, row).casefold()}

    def generators(self, row: str) -> list[str]:
        """The generators that the row has figures of; the mean is none of them."""
        found = (name for rows in self.values.values() for name in rows.get(row, {}) if name != MEAN)
        return list(dict.fromkeys(found))

    def is_called(self, generator: str, source: str) -> bool:
        """Whether images of a source are the generator's: it has that name, or another of its names."""
        return source.casefold() in {name.casefold() for name in (generator, *self.aliases.get(generator, ()))}


@dataclass(frozen=True)
class Wanted:
    """A table, and perhaps the row that is asked for.

    :param name: the table's name
    :param row: the row's name; None takes the detector's own row
    """

    name: str
    table: PublishedTable
    row: str | None = None

    @classmethod
    def parse(cls, word: str) -> "Wanted":
        """:param word: TABLE, or TABLE/ROW
        :raises UserError: there is no such table, or it has no such row
        """
        name, _, row = word.partition("/")
        table = read_data(FOLDER, name, "published table", PublishedTable)
        found = table.row_called(row) if row else None
        if row and found is None:
            raise UserError(f"the table {name} has no row {row}: it has {', '.join(table.rows)}")
        return cls(name, table, found)

    def row_of(self, name: str, method: str) -> str:
        """The row of a detector: its own, its method's, or the only checkpoint of its method that the table has.

        :param name, method: what its detector.json says, e.g. rine-4class and rine. A name of the zoo is one
            checkpoint's, which has no row where the table has another checkpoint
        :raises UserError: no row is named like it, or several could be meant
        """
        if self.row:
            return self.row
        rows = self.table.rows
        if found := next((row for row in (name, method) if row in rows), None):
            return found
        could = [row for row in rows if row.startswith(f"{method}-")]
        other = len(could) == 1 and name in ZOO
        if len(could) == 1 and not other:
            return could[0]
        raise UserError(
            f"the table {self.name} has no row {name if other else method}: name one of its rows, "
            f"{', '.join(could or rows)}, e.g. --against {self.name}/{(could or rows)[0]}"
        )

    def rows_of(self, detectors: Sequence[tuple[str, str]]) -> list[str | None]:
        """The row of each of several detectors, None of one that the table does not have.

        :param detectors: the name and the method of each
        :raises UserError: a row is asked for, or the table has none of them
        """
        if self.row:
            raise UserError(f"--against {self.name}/{self.row} is for one detector: of several, each finds its own row")
        found: list[str | None] = []
        refusals: list[UserError] = []
        for name, method in detectors:
            try:
                found.append(self.row_of(name, method))
            except UserError as refusal:
                found.append(None)
                refusals.append(refusal)
        if len(refusals) == len(detectors):
            raise refusals[0]
        return found

"""Mutated lists and interrupted results: rows, or one UserError of one line."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from PIL import Image

from spai_runtime.files.sources import Sources
from spai_train.data.table import read_table
from tests.fuzz.attempts import one_line_at_most
from tests.fuzz.mutation import Edit, edits, limits, mutated
from tests.support.commands import Run
from tests.support.images import pixels

LIST = (
    b"\xef\xbb\xbfimage,class,split,source\r\n"
    b'a.png,0,train,"cam, era"\r\n'
    b'"b\nc.png",1,val,\xe9\r\n'
    b'a.png,1,"te""st",=cmd\r\n' * 3
)

READERS: Sequence[Callable[[Path], object]] = (
    lambda path: list(Sources([str(path)])),
    lambda path: Sources([str(path)]).count(),
    read_table,
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    Image.fromarray(pixels(40, 40)).save(tmp_path / "a.png")
    return tmp_path / "list.csv"


def test_mutated_tables(table: Path) -> None:
    @limits(examples=300)
    @given(made=edits())
    def fuzz(made: list[Edit]) -> None:
        for suffix in (".csv", ".txt"):
            path = table.with_suffix(suffix)
            path.write_bytes(mutated(LIST, made))
            for read in READERS:
                with one_line_at_most():
                    read(path)

    fuzz()


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_mutated_leftovers_of_an_interrupted_run(run: Run, table: Path, tiny_detector: Path, suffix: str) -> None:
    """Whatever has become of what lies beside the output, the run ends in the same file."""
    table.write_text("image\n" + "a.png\n" * 4)
    output = table.with_name(f"scores.{suffix}")
    assert run(table, "--engine", tiny_detector, "--output", output).code == 0
    whole = {path: path.read_bytes() for path in output.parent.iterdir() if path.name.startswith("scores.")}
    places = sorted(whole)

    @limits(examples=25)
    @given(made=edits())
    def fuzz(made: list[Edit]) -> None:
        for path in output.parent.glob("scores.*"):
            path.unlink()
        touched = places[made[0].at % len(places)]
        for path, content in whole.items():
            path.write_bytes(mutated(content, made) if path == touched else content)
            if path != touched or made[0].length % 2:
                path.rename(f"{path}.partial")
        ran = run(table, "--engine", tiny_detector, "--output", output, "--resume")
        assert ran.code == 0, ran.stderr
        assert output.read_bytes() == whole[output]

    fuzz()

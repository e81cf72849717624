"""`spai-run` from JPEGs on disk, beside its encoder alone and decoding alone: which of them sets the pace?"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import median

from measure import ratio, take_turns
from photographs import write_photographs
from PIL import Image
from runs import run

from gpu.bench import Bench
from gpu.contender import Contender
from gpu.engine_runners import EngineRunner
from gpu.results import Row, named
from gpu.timing import steady, warm_up
from spai_runtime.cores import cores
from spai_runtime.detector import Detector
from spai_runtime.files.sources import Item
from spai_runtime.images import Picture
from spai_runtime.scoring.pipeline import WORKERS

# Width, height and number of files; a file is read as often as it takes to fill the time, from the page cache.
SETS = {
    "448 to 896 pixels a side": ((448, 448, 12), (640, 480, 12), (480, 720, 12), (800, 600, 12), (896, 672, 12)),
    "12 megapixels": ((4000, 3000, 6),),
}


@dataclass(frozen=True)
class Photographs:
    """A set of files."""

    name: str
    paths: Sequence[Path]

    @classmethod
    def write(cls, name: str, folder: Path, sizes: Sequence[tuple[int, int, int]]) -> "Photographs":
        """:param sizes: width, height and number of files"""
        groups = [write_photographs(folder / f"{size[0]}x{size[1]}", *size) for size in sizes]
        return cls(name, [path for group in zip(*groups, strict=True) for path in group])  # sizes take turns

    def items(self, times: int) -> list[Item]:
        """All files, that often."""
        return [Item(path, path.name) for path in self.paths] * times

    def tiles(self, detector: Detector) -> int:
        """Of all files."""
        layout = detector.manifest.views.layout
        return sum(len(layout(height, width)) for width, height in map(_size, self.paths))

    def megapixels(self) -> float:
        """Of a file, the mean."""
        return sum(width * height for width, height in map(_size, self.paths)) / len(self.paths) / 1e6


def end_to_end(bench: Bench, contender: Contender, batch: int, photographs: Photographs) -> None:
    """A row of one contender and one set of files; the encoder's own rate is measured anew, in turns."""
    row: Row = {**named(contender), "images": photographs.name, "batch": batch}
    bench.results.content["end_to_end"].append(row)
    with bench.row_of(f"{contender.name}, end to end", row), ExitStack() as opened:  # the encoder itself may go on
        bench.in_time()
        contender.prepare(batch)
        bench.gpu.free()
        with bench.gpu.peak() as peak:
            runner = contender.load(bench.reference.tiles[:batch])
            opened.callback(runner.close)
            assert isinstance(runner, EngineRunner)
            run(runner.detector, photographs.items(1), batch)
        row |= {"default_batch": runner.default_batch, "memory_mb": peak.grown / 1e6}
        row |= _in_turns(bench, runner, batch, photographs)
        row["graph"] = runner.graph
    bench.results.write(row)


def _in_turns(bench: Bench, runner: EngineRunner, batch: int, photographs: Photographs) -> Row:
    """Seconds an image: of the run, of decoding, and of the encoder on as many tiles."""
    detector, tiles = runner.detector, photographs.tiles(runner.detector)
    items = photographs.items(_times(bench, detector, batch, photographs))
    each, workers = tiles / len(photographs.paths), min(WORKERS, cores())
    launches = ceil(len(items) * each / batch)
    turns: dict[str, Callable[[], object]] = {
        "run": lambda: run(detector, items, batch),
        "encoder": lambda: steady(runner.lanes, launches),
        "decode": lambda: decode(items, workers),
    }
    warm_up(runner)
    found = take_turns(turns, bench.settings.rounds)
    whole, decoded = ([wall / len(items) for wall in found[name].wall] for name in ("run", "decode"))
    encoder = [wall / (launches * batch) * each for wall in found["encoder"].wall]
    return {
        "images_per_s": 1 / median(whole),
        "encoder_images_per_s": 1 / median(encoder),
        "decode_images_per_s": 1 / median(decoded),
        "share_of_encoder": ratio(encoder, whole),
        "tiles_per_image": each,
        "megapixels": photographs.megapixels(),
        "files": len(photographs.paths),
        "images_a_round": len(items),
        "workers": workers,
    }


def _times(bench: Bench, detector: Detector, batch: int, photographs: Photographs) -> int:
    """How often the files are read in a turn, so that it takes twice the time of other measurements."""
    start = bench.clock()
    run(detector, photographs.items(1), batch)
    return max(1, round(2 * bench.settings.seconds / (bench.clock() - start)))


def decode(items: Sequence[Item], workers: int) -> None:
    """Reads and decodes to RGB, in as many threads as a run has, and keeps nothing."""
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(lambda item: Picture.open(item.path).load().array().nbytes, items):
            pass


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size

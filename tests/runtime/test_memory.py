"""Memory depends on neither the number of images nor, beyond their decoded pixels, on their size."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.support.bombs import flat_png, webp
from tests.support.commands import spawn
from tests.support.images import Write
from tests.support.manifests import edit

MIB = 1 << 20
CONSTANT = 80 * MIB  # what decoders, batches and allocators may add to the pixels themselves

# The high-water mark of this very process: getrusage would report that of the parent it was forked from.
WRITE_PEAK = """
import atexit, pathlib
def write_peak():
    status = pathlib.Path("/proc/self/status").read_text()
    pathlib.Path({path!r}).write_text(status.split("VmHWM:")[1].split()[0])
atexit.register(write_peak)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is read from /proc")


@pytest.fixture
def engine(tiny_detector: Path, tmp_path: Path) -> Path:
    """The tiny detector, looking at one tile in a thousand pixels."""
    directory = Path(shutil.copytree(tiny_detector, tmp_path / "m"))
    edit(directory, views={"policy": "tiles", "size": 32, "stride": 1000, "minimum": 4})
    return directory


def peak(engine: Path, *inputs: Path, rows: int) -> int:
    """Largest resident memory of a run in bytes, with more threads than most machines would give it."""
    path = engine.parent / "peak"
    options = "--engine", engine, "--device", "cpu", "--workers", 8
    ran = spawn(*inputs, *options, prelude=WRITE_PEAK.format(path=str(path)))
    assert (ran.code, ran.stderr, ran.stdout.count("\n")) == (0, "", rows + 1)
    return int(path.read_text()) * 1024


def flat(path: Path, width: int, height: int) -> Path:
    """A JPEG that is quick to write and to read."""
    Image.new("RGB", (width, height), (200, 120, 40)).save(path, quality=50)
    return path


def test_ten_times_the_images(engine: Path, photo: Write, tmp_path: Path) -> None:
    originals = [photo(f"{seed}.jpg", 60 + 9 * seed, 100, seed=seed) for seed in range(5)]
    found = {}
    for count in (200, 2000):
        folder = tmp_path / str(count)
        folder.mkdir()
        for index in range(count):
            (folder / f"{index:04}.jpg").hardlink_to(originals[index % 5])
        found[count] = peak(engine, folder, rows=count)
    print({count: f"{value / MIB:.1f} MiB" for count, value in found.items()})  # noqa: T201
    assert found[2000] <= 1.1 * found[200]


def test_a_hundred_megapixels(engine: Path, photo: Write, tmp_path: Path) -> None:
    small = peak(engine, photo("small.jpg", 64, 64), rows=1)
    large = peak(engine, flat(tmp_path / "large.jpg", 10_000, 10_000), rows=1)
    print(f"{small / MIB:.1f} MiB, {large / MIB:.1f} MiB: {(large - small - 4e8) / MIB:.1f} beside the pixels")  # noqa: T201
    assert 0.99 * 4e8 <= large - small <= 4e8 + CONSTANT


@pytest.mark.parametrize(
    ("side", "bytes_per_pixel", "content"),
    [(5000, 16, webp), (2800, 16, webp), (5000, 4, flat_png)],
    ids=["large WebP", "small WebP", "PNG"],
)
def test_bombs_are_decoded_one_at_a_time(
    engine: Path, photo: Write, tmp_path: Path, side: int, bytes_per_pixel: int, content: Callable[[int, int], bytes]
) -> None:
    """A small file whose decoder takes more than the budget, or so much that the budget has room for one."""
    small = peak(engine, photo("small.jpg", 64, 64), rows=1)
    bombs = tmp_path / "bombs"
    bombs.mkdir()
    for index in range(6):
        (bombs / f"{index}.image").write_bytes(content(side, side))
    large = peak(engine, *sorted(bombs.iterdir()), rows=6)
    print(f"{(large - small) / MIB:.1f} MiB for six of {bytes_per_pixel * side**2 / MIB:.1f}")  # noqa: T201
    assert large - small <= bytes_per_pixel * side**2 + CONSTANT


def test_large_images_wait_for_each_other(engine: Path, photo: Write, tmp_path: Path) -> None:
    """Ten images of 80 MB, of which the budget of 128 MiB lets one be decoded at a time."""
    small = peak(engine, photo("small.jpg", 64, 64), rows=1)
    original = flat(tmp_path / "0.jpg", 5000, 4000)
    for index in range(1, 10):
        (tmp_path / f"{index}.jpg").hardlink_to(original)
    large = peak(engine, *sorted(tmp_path.glob("?.jpg")), rows=10)
    print(f"{(large - small) / MIB:.1f} MiB for ten images of {8e7 / MIB:.1f}")  # noqa: T201
    assert large - small <= 8e7 + CONSTANT

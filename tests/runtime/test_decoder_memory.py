"""What each decoder takes, measured, is no more than the header of a file was said to cost."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from spai_runtime.errors import ImageError
from spai_runtime.images import FORMATS, Picture
from spai_runtime.images.jpeg import MOST_SCANS
from tests.support.bombs import overlapping_tags, with_exif

SIDE = 2500  # pixels
SLACK = 12 << 20  # bytes: buffers that do not depend on the number of pixels

# Decodes every file in turn and prints the bytes that were said and those that the process took at its peak, with the
# child that decodes some formats: the sum of both peaks, which are not at the same time.
MEASURE = """
import sys
from PIL import Image
from spai_runtime.images import Picture, apart

def resident(name):
    processes = "self", apart._children.idle[0]._process.pid
    statuses = [open(f"/proc/{process}/status").read() for process in processes]
    return sum(1024 * int(status.split(name)[1].split()[0]) for status in statuses)

for path in sys.argv[1:3]:
    Picture.open(path).load().close()  # what a first image takes once and for all
for path in sys.argv[3:]:
    for process in ("self", apart._children.idle[0]._process.pid):
        open(f"/proc/{process}/clear_refs", "w").write("5")  # the high-water mark begins anew
    before = resident("VmRSS:")
    picture = Picture.open(path)
    said = picture.decoding_nbytes
    picture.load()
    peak, kept = resident("VmHWM:"), resident("VmRSS:")
    print(said, peak - before, picture.nbytes, kept - before, path)
    picture.close()
    Image.core.clear_cache()
"""


def saved(mode: str = "RGB", **options: object) -> Callable[[Path], None]:
    """What writes a flat image of that mode."""
    return lambda path: Image.new(mode, (SIDE, SIDE), 0).save(path, **options)  # type: ignore[arg-type]


def run_lengths(path: Path) -> None:
    """A BMP whose every line is ten runs."""
    line = b"".join(bytes((SIDE // 10, 7)) for _ in range(10)) + b"\0\0"
    pixels = line * SIDE + b"\0\1"
    file = io.BytesIO()
    Image.new("P", (SIDE, SIDE)).save(file, "BMP")
    header = bytearray(file.getvalue()[: 14 + 40 + 1024])
    header[30:34] = (1).to_bytes(4, "little")  # BI_RLE8
    path.write_bytes(bytes(header) + pixels)


def plain_text(path: Path) -> None:
    path.write_bytes(b"P3 %d %d 255\n" % (SIDE, SIDE // 5) + b"1 2 3\n" * (SIDE * SIDE // 5))


FILES: dict[str, Callable[[Path], None]] = {
    "baseline.jpg": saved(),
    "progressive.jpg": saved(progressive=True),
    "444.jpg": saved(progressive=True, subsampling=0),
    "cmyk.jpg": saved("CMYK", progressive=True),
    "grey.jpg": saved("L", progressive=True),
    "rgb.png": saved(),
    "palette.png": saved("P"),
    "16.png": saved("I;16"),
    "alpha.png": saved("RGBA"),
    "lossy.webp": saved(),
    "lossless.webp": saved(lossless=True),
    "alpha.webp": saved("RGBA", exact=True),
    "420.avif": saved(speed=10),
    "444.avif": saved(speed=10, subsampling="4:4:4"),
    "alpha.avif": saved("RGBA", speed=10),
    "strip.tif": saved(compression="tiff_lzw", strip_size=1 << 30),
    "alpha.tif": saved("RGBA", compression="tiff_adobe_deflate", strip_size=1 << 30),
    "jpeg.tif": saved(compression="jpeg", strip_size=1 << 30),
    "fax.tif": saved("1", compression="group4"),
    "grey.jp2": saved("L"),
    "rgb.jp2": saved(),
    "alpha.jp2": saved("RGBA"),
    "16.jp2": saved("I;16"),
    "palette.gif": saved("P"),
    "rgb.bmp": saved(),
    "runs.bmp": run_lengths,
    "binary.ppm": saved(),
    "plain.ppm": plain_text,
}


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is read from /proc")
def test_no_decoder_takes_more_than_its_file_was_said_to_cost(tmp_path: Path) -> None:
    for name, write in FILES.items():
        write(tmp_path / name)
    assert {Image.open(tmp_path / name).format for name in FILES} == FORMATS.keys() - {"MPO"}  # which is a JPEG
    paths = [str(tmp_path / name) for name in ("rgb.png", "strip.tif", *FILES)]
    freed = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # what an image has taken goes back with it
    command = [sys.executable, "-c", MEASURE, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=freed)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == len(FILES)
    for *numbers, path in lines:
        said, taken, pixels, kept = map(int, numbers)
        print(f"{Path(path).name}: {said / SIDE**2:.1f} bytes a pixel, taken {taken / SIDE**2:.1f}")  # noqa: T201
        assert taken <= said + SLACK, path
        assert kept <= pixels + SLACK, path
        assert taken >= 0.9 * pixels, f"{path} was not measured"


def with_scans(count: int) -> bytes:
    """A progressive JPEG with its last scan again and again."""
    file = io.BytesIO()
    Image.new("L", (64, 64), 99).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    last, end = content.rindex(b"\xff\xda"), content.rindex(b"\xff\xd9")
    return content[:end] + content[last:end] * (count - content.count(b"\xff\xda")) + content[end:]


def test_a_jpeg_of_too_many_scans_is_not_decoded() -> None:
    assert Picture.open(with_scans(MOST_SCANS)).load().width == 64
    with pytest.raises(ImageError, match="a JPEG of more than 50 scans"):
        Picture.open(with_scans(MOST_SCANS + 1))


def test_what_looks_like_a_scan_and_is_none_is_not_counted() -> None:
    """In a comment, in a thumbnail, and behind the end of the image, where phones put a film."""
    content = with_scans(MOST_SCANS)
    comment = b"\xff\xfe" + (2 + 3000).to_bytes(2, "big") + b"\xff\xda\0" * 1000
    assert Picture.open(content[:2] + comment + content[2:] + b"\xff\xda\0\3" * 1000).load().width == 64


HEADER = """
import sys
from spai_runtime.errors import ImageError
from spai_runtime.images import Picture

def resident(name):
    return 1024 * int(open("/proc/self/status").read().split(name)[1].split()[0])

Picture.open(sys.argv[1])
before = resident("VmRSS:")
for path in sys.argv[2:]:
    open("/proc/self/clear_refs", "w").write("5")
    Picture.open(path)
    print(resident("VmHWM:") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is read from /proc")
def test_a_header_takes_no_more_than_its_file(tmp_path: Path) -> None:
    """Two hundred tags that share a megabyte."""
    tags = overlapping_tags(200, 1 << 20)
    (tmp_path / "small.tif").write_bytes(overlapping_tags(1, 100))
    (tmp_path / "tags.tif").write_bytes(tags)
    (tmp_path / "exif.jpg").write_bytes(with_exif(with_scans(10), tags))
    paths = [str(tmp_path / name) for name in ("small.tif", "tags.tif", "exif.jpg")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HEADER, *paths], capture_output=True, text=True, check=True
    )
    assert all(int(line) < 3 * len(tags) + SLACK for line in done.stdout.splitlines()), done.stdout
    assert len(done.stdout.splitlines()) == 2

"""What tests share: small detectors, sample images, files that are wrong, and spai-run in this process."""

import os
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from spai_export.directory import export
from spai_runtime.cli.run import main
from spai_train.checkpoint import Card, save_checkpoint
from spai_train.models.spai import SPAI, SPAIConfig

GOLDEN = Path(__file__).parent / "golden"
NOBODY = 65534

TINY = SPAIConfig(
    tile_size=32,
    tile_stride=32,
    mask_radius=4,
    patch_size=8,
    width=16,
    depth=2,
    heads=2,
    mlp_ratio=2.0,
    blocks=(0, 1),
    projection=8,
    attention_width=8,
    attention_heads=2,
    head_ratio=2,
)

Write = Callable[..., Path]


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str


Run = Callable[..., Ran]


@pytest.fixture(scope="session")
def tiny_config() -> SPAIConfig:
    return TINY


@pytest.fixture(scope="session")
def tiny_model() -> SPAI:
    """A SPAI of random weights, the same in every run."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SPAI(TINY).eval()


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_model: SPAI, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    save_checkpoint(path, tiny_model, Card(name="tiny"))
    return path


@pytest.fixture(scope="session")
def tiny_detector(tiny_checkpoint: Path) -> Path:
    """Directory of the exported tiny model; do not write into it."""
    return export(tiny_checkpoint, tiny_checkpoint.parent / "detector").directory


@pytest.fixture(scope="session")
def golden_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the exported golden checkpoint; do not write into it."""
    return export(GOLDEN / "spai_small.pth", tmp_path_factory.mktemp("golden") / "detector").directory


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """spai-run in this process: `run("photos", "--engine", directory)`."""

    def call(*arguments: object) -> Ran:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


def spawn(*arguments: object, prelude: str = "", **environment: str) -> Ran:
    """spai-run in a process of its own, in a pipe.

    :param prelude: Python that runs first
    :param environment: beside that of this process
    """
    code = f"{prelude}\nimport sys\nfrom spai_runtime.cli.run import main\nsys.exit(main())"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", env={**os.environ, **environment}, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def pixels(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """(height, width, 3) uint8: noise on a ramp, so that no two places look alike."""
    noise = np.random.default_rng(seed).integers(0, 128, (height, width, 3))
    ramp = np.add.outer(np.arange(height), np.arange(width)) % 128
    return (noise + ramp[:, :, None]).astype(np.uint8)


@pytest.fixture
def photo(tmp_path: Path) -> Write:
    """Writes an image: `photo("a.png", 40, 50)`, or `photo("a.tif", 40, 50, mode="CMYK")`."""

    def write(name: str, height: int, width: int, *, seed: int = 0, mode: str = "RGB", **options: object) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(height, width, seed)).convert(mode).save(path, **options)
        return path

    return write


def png(width: int, height: int, bits: int = 8, data: bytes = b"") -> bytes:
    """A PNG of RGB pixels, whatever its data."""
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", data), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def write_bad_images(folder: Path) -> dict[str, str]:
    """Files that no detector can score → what their error says."""
    sample = folder / "sample.jpeg"
    Image.fromarray(pixels(64, 64)).save(sample)
    content = sample.read_bytes()
    sample.unlink()
    (folder / "truncated.jpg").write_bytes(content[: len(content) // 2])
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("not an image\n" * 100)
    (folder / "header_only.png").write_bytes(png(40, 40)[:33])
    (folder / "bomb.png").write_bytes(png(60_000, 60_000))
    (folder / "broken_link.jpg").symlink_to("nowhere.jpg")
    (folder / "link_loop.jpg").symlink_to("link_loop.jpg")
    os.mkfifo(folder / "pipe.jpg")
    Image.fromarray(np.full((40, 40), 0.5, np.float32)).save(folder / "float.tif")
    Image.new("LAB", (40, 40)).save(folder / "lab.tif")
    (folder / "unreadable.jpg").write_bytes(content)
    (folder / "unreadable.jpg").chmod(0)
    return {
        "truncated.jpg": "truncated",
        "empty.jpg": "the file is empty",
        "text.jpg": "not an image",
        "header_only.png": "not an image",
        "bomb.png": "3600000000 pixels",
        "broken_link.jpg": "No such file",
        "link_loop.jpg": "Too many levels of symbolic links",
        "pipe.jpg": "not a regular file",
        "float.tif": "pixels of mode F have no defined 8-bit range",
        "lab.tif": "pixels of mode LAB have no defined 8-bit range",
        "unreadable.jpg": "Permission denied",
    }


def write_odd_images(folder: Path) -> Sequence[str]:
    """Files that are unusual and must be scored → their names."""
    rgb = Image.fromarray(pixels(40, 50))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown rotated
    rgb.save(folder / "rotated.jpg", exif=exif)
    Image.fromarray(pixels(1, 1)).save(folder / "1x1.png")
    Image.fromarray(pixels(1, 3000)).save(folder / "1x3000.png")
    Image.fromarray(pixels(3000, 1)).save(folder / "3000x1.png")
    Image.fromarray(pixels(40, 50)[:, :, 0].astype(np.uint16) * 257).save(folder / "grey16.png")
    rgb.quantize(16).save(folder / "palette.png", transparency=bytes(range(16)))
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.convert("RGBA").save(folder / "rgba.png")
    rgb.convert("LA").save(folder / "la.png")
    rgb.save(folder / "animated.gif", save_all=True, append_images=[rgb.rotate(90), rgb.rotate(180)])
    rgb.save(folder / "comma, and\nnewline.png")
    rgb.save(folder / "latin.png")
    os.rename(folder / "latin.png", os.fsencode(folder) + b"/latin-\xe9.png")  # noqa: PTH104  a name in bytes
    fixed = {path.name for path in folder.iterdir()}
    return sorted(fixed)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder that every user may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Gives up the rights of root, for which every file is readable."""
    if os.geteuid() != 0:
        yield
        return
    try:
        os.seteuid(NOBODY)
    except OSError:
        pytest.skip("root without the right to become another user reads everything")
    try:
        yield
    finally:
        os.seteuid(0)

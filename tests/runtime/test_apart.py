"""Formats that are decoded in a process of their own: the same pixels, and limits."""

import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spai_runtime.child import Child, ChildStartError
from spai_runtime.errors import ImageError
from spai_runtime.images import FORMATS, Picture, apart, read_image
from tests.support.commands import spawn
from tests.support.images import pixels

MODES = {
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"),
    "JPEG2000": ("L", "LA", "RGB", "RGBA", "I;16"),
    "AVIF": ("L", "RGB", "RGBA"),
}


@pytest.fixture
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another service, and so other children, than the one that decodes."""
    children = apart._Children(2)
    monkeypatch.setattr(apart, "_SERVICE", f"tests.support.decoders:{request.param}")
    monkeypatch.setattr(apart, "_children", children)
    yield
    for child in children.idle:
        child.close()


@pytest.fixture
def tiff(tmp_path: Path) -> Path:
    path = tmp_path / "a.tif"
    Image.fromarray(pixels(40, 30)).save(path)
    return path


def written(mode: str, format: str) -> bytes:  # noqa: A002
    """A file of noise in that mode."""
    rgb = Image.fromarray(pixels(41, 53))
    if mode == "I;16":
        image = Image.fromarray(np.random.default_rng(0).integers(0, 65536, (41, 53)).astype(np.uint16))
    else:
        image = rgb.quantize(50) if mode == "P" else rgb.convert(mode)
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


def test_the_modes_are_those_of_all_formats_that_are_decoded_apart() -> None:
    assert MODES.keys() == {name for name, row in FORMATS.items() if row.apart}


@pytest.mark.parametrize(("name", "mode"), [(name, mode) for name, modes in MODES.items() for mode in modes])
def test_pixels_are_those_that_pillow_decodes_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, mode: str
) -> None:
    monkeypatch.setattr(apart, "_BAND_BYTES", 500)  # many bands
    content = written(mode, name)
    here = Image.open(io.BytesIO(content))
    here.load()
    grey = (np.asarray(here) >> 8).astype(np.uint8) if mode == "I;16" else np.asarray(here.convert("RGB"))
    expected = grey if grey.ndim == 3 else np.repeat(grey[:, :, None], 3, axis=2)
    path = tmp_path / os.fsdecode(b"\xe9.image")
    path.write_bytes(content)
    for source in (content, path):
        picture = Picture.open(source)
        foretold = picture.nbytes
        assert np.array_equal(picture.load().array(), expected)
        assert picture.nbytes == foretold


def test_a_crop_decodes_where_nothing_did(tiff: Path) -> None:
    picture = Picture.open(tiff)
    assert np.array_equal(picture.crop(1, 2, 9, 17), pixels(40, 30)[1:9, 2:17])


def test_truncated_files_have_an_error_and_the_child_goes_on(tmp_path: Path, tiff: Path) -> None:
    (tmp_path / "half.tif").write_bytes(tiff.read_bytes()[:2000])
    for _ in range(3):
        with pytest.raises(ImageError, match=r"cannot be (read|decoded)|truncated"):
            read_image(tmp_path / "half.tif")
        assert np.array_equal(read_image(tiff), pixels(40, 30))


def test_a_file_that_was_replaced_after_its_header_was_read(tiff: Path) -> None:
    picture = Picture.open(tiff)
    Image.fromarray(pixels(50, 60)).save(tiff)
    with pytest.raises(ImageError, match="it has changed since its header was read"):
        picture.load()


def test_the_limit_of_pixels_is_that_of_this_process(tiff: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_image(tiff).shape == (40, 30, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(ImageError, match="1200 pixels"):
        read_image(tiff)


def test_a_relative_path_after_the_working_directory_has_changed(tiff: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_image(tiff).shape == (40, 30, 3)
    monkeypatch.chdir(tiff.parent)
    assert read_image(tiff.name).shape == (40, 30, 3)


def test_many_threads_share_few_children(tiff: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        arrays = list(pool.map(lambda _: read_image(tiff), range(64)))
    assert all(np.array_equal(array, pixels(40, 30)) for array in arrays)
    assert 1 <= len(apart._children.idle) <= apart.CHILDREN


def test_a_forked_process_has_children_of_its_own(tiff: Path) -> None:
    """As the workers of a data loader have, though all of their parent's are busy when they are forked."""
    with ExitStack() as busy:
        for _ in range(apart._children._most):
            busy.enter_context(apart._children.borrowed())
        with multiprocessing.get_context("fork").Pool(2) as pool:
            arrays = pool.map_async(read_image, [tiff] * 4).get(60)
    assert all(np.array_equal(array, pixels(40, 30)) for array in arrays)


def test_where_no_further_child_starts_those_that_there_are_have_to_do(
    tiff: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children, start, started = apart._Children(4), Child.start, list[Child]()

    def start_one(child: Child) -> None:
        if started and child not in started:
            raise ChildStartError("no process could be started for it: Too many open files")
        started.append(child)
        start(child)

    monkeypatch.setattr(apart, "_children", children)
    monkeypatch.setattr(Child, "start", start_one)
    with ThreadPoolExecutor(8) as pool:
        arrays = list(pool.map(lambda _: read_image(tiff), range(24)))
    assert all(np.array_equal(array, pixels(40, 30)) for array in arrays)
    (child,) = children.idle
    child.close()
    children.idle.clear()
    with pytest.raises(ImageError, match="no process could be started for it: Too many open files"):
        read_image(tiff)


@pytest.mark.parametrize(
    ("service", "sentence"),
    [
        ("spins", "decoding takes more than 1 s of processor time, and is given up"),
        ("takes_memory", "decoding takes more memory than its size explains, and is given up"),
        ("crashes", "cannot be decoded: its process ended by signal 11"),
        ("lies", "cannot be decoded: its process gives pixels"),
    ],
    indirect=["service"],
)
@pytest.mark.usefixtures("service")
def test_what_a_hostile_file_may_do(tiff: Path, monkeypatch: pytest.MonkeyPatch, sentence: str) -> None:
    monkeypatch.setattr(apart, "CPU_SECONDS", 1)
    for _ in range(2):
        with pytest.raises(ImageError, match=sentence):
            read_image(tiff)
    assert not apart._children.idle


@pytest.mark.parametrize("service", ["spins"], indirect=True)
@pytest.mark.usefixtures("service")
def test_a_child_that_is_killed_from_outside(tiff: Path) -> None:
    failed: list[str] = []

    def read() -> None:
        with pytest.raises(ImageError) as caught:
            read_image(tiff)
        failed.append(str(caught.value))

    thread = threading.Thread(target=read)
    thread.start()
    while not (found := children_of(os.getpid())):
        pass
    os.kill(found[-1], signal.SIGKILL)
    thread.join(60)
    assert failed
    assert "its process ended by signal 9" in failed[0]


def children_of(process: int) -> list[int]:
    """Processes that decode, by what they were started with."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    found = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return [child for child in found if b"decoders:" in Path(f"/proc/{child}/cmdline").read_bytes()]


def test_what_libtiff_says_of_a_thousand_broken_strips_is_not_on_stderr(tiny_detector: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken.tif"
    Image.fromarray(pixels(1000, 40)).save(path, compression="tiff_lzw", strip_size=1)
    content = bytearray(path.read_bytes())
    content[8:-20_000] = bytes(byte ^ 0x55 for byte in content[8:-20_000])
    path.write_bytes(content)
    Image.open(path)  # whose header is whole
    ran = spawn(path, "--engine", tiny_detector, "--device", "cpu")
    assert ran.code == 3
    assert len(ran.stderr.splitlines()) == 1, ran.stderr

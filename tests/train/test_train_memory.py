"""What commands of training take of memory: no more than a budget, and one image that is larger than that."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

from spai_train.data.turns import Turns

SIDE = 2500  # pixels
SLACK = 12 << 20  # bytes: buffers that do not depend on the number of pixels
LARGE = 6000  # pixels: 36 MP of WebP take 576 MB
MIB = 1 << 20

PEAK = """
import sys
def resident(name):
    return 1024 * int(open("/proc/self/status").read().split(name)[1].split()[0])
def begin():
    open("/proc/self/clear_refs", "w").write("5")  # the high-water mark begins anew
    return resident("VmRSS:")
"""

DRAW = """
from dataclasses import replace
from PIL import Image
from spai_runtime.images import Picture
from spai_train.data.augment import Augment
from spai_train.data.augmentation import FINETUNE, PRETRAIN
from spai_train.data.perturb import Kind, Perturbation
from spai_train.evaluation.pictures import PerturbedPicture
WHOLE = {"crop": (0.999, 1.0), "ratio": (1.0, 1.0)}
DEGRADED = replace(FINETUNE, **WHOLE, blur=1.0, noise=1.0, jpeg=1.0, shorter_side=1000)
SETTINGS = [replace(FINETUNE, **WHOLE), replace(PRETRAIN, **WHOLE), replace(DEGRADED, degrade="image")]
SETTINGS.append(replace(DEGRADED, degrade="resized"))
LEVELS = {Kind.JPEG: 80, Kind.WEBP: 80, Kind.BLUR: 9, Kind.NOISE: 5, Kind.SCALE: 1.2}
def draw(path, settings):
    picture = Picture.open(path)
    augment = Augment(settings, 224)
    yield augment.nbytes(picture)
    augment.views(picture, [1, 2])
    picture.close()
def perturb(path, kind):
    picture = PerturbedPicture(Picture.open(path), Perturbation(kind, LEVELS[kind]), 0)
    yield picture.decoding_nbytes
    picture.load().close()
for path in sys.argv[1:]:
    for action, what in [*((draw, settings) for settings in SETTINGS), *((perturb, kind) for kind in LEVELS)]:
        before, steps = begin(), action(path, what)
        said = next(steps)
        list(steps)
        print(said, resident("VmHWM:") - before, action.__name__)
        Image.core.clear_cache()
"""

INDEX = """
from pathlib import Path
from spai_train.data.index import read_images
from spai_train.data.layouts import Found
before = begin()
checked = list(read_images([Found(Path(path), 0, "made") for path in sys.argv[1:]], 8))
assert not any(one.error for one in checked), checked
print(resident("VmHWM:") - before)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is read from /proc")


def printed(script: str, *paths: Path) -> list[list[str]]:
    """The words of every line that a process prints, which keeps no memory that it has freed."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-W", "ignore", "-c", PEAK + script, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return [line.split() for line in done.stdout.splitlines()]


def test_views_and_perturbations_take_what_is_foretold(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("small.jpg", "a.jpg", "a.png")]  # with the first, libraries are loaded
    for path, mode, side in zip(paths, ("RGB", "RGB", "P"), (SIDE // 10, SIDE, SIDE), strict=True):
        Image.new(mode, (side, side)).save(path)
    lines = printed(DRAW, *paths)
    for said, taken, action in lines[len(lines) // 3 :]:
        print(f"{action}: {int(said) / SIDE**2:.1f} bytes a pixel, taken {int(taken) / SIDE**2:.1f}")  # noqa: T201
        assert 4 * SIDE**2 <= int(taken) <= int(said) + SLACK


def test_an_index_decodes_one_large_image_at_a_time(tmp_path: Path) -> None:
    first = tmp_path / "0.webp"
    Image.new("RGB", (LARGE, LARGE)).save(first, lossless=True)
    for index in range(1, 4):
        (tmp_path / f"{index}.webp").hardlink_to(first)
    ((taken,),) = printed(INDEX, *sorted(tmp_path.iterdir()))
    print(f"{int(taken) / MIB:.0f} MiB for four images of {16 * LARGE**2 / MIB:.0f}")  # noqa: T201
    assert 12 * LARGE**2 < int(taken) < 17 * LARGE**2 + SLACK


def test_large_ones_take_turns_and_small_ones_do_not() -> None:
    turns, entered = Turns(100), threading.Event()

    def enter(nbytes: int) -> None:
        with turns.take(nbytes):
            entered.set()

    with turns.take(101), turns.take(200):  # what one thread has, it may take again
        for nbytes, waits in ((100, False), (101, True)):
            entered.clear()
            thread = threading.Thread(target=enter, args=[nbytes])
            thread.start()
            assert entered.wait(0.2 if waits else 30) is not waits
    thread.join(30)
    assert entered.is_set()

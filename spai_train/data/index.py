"""The index of a data set: images that were found → rows of a table, without broken files and without copies.

An image is identified by the SHA-256 of its file. It finds copies and orders the automatic split, so that a file's
split depends on the seed and on the content of the files, not on their names or on where they lie.
"""

import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from spai_runtime.errors import ImageError, UserError
from spai_runtime.files.digest import sha256_of
from spai_runtime.files.sources import printable
from spai_runtime.images import Picture
from spai_runtime.scoring.budget import PIXEL_BYTES, Budget
from spai_train.data.layouts import SPLITS, Found
from spai_train.data.regular import size_of
from spai_train.data.table import Row

# Of copies, the one stays whose split comes first: an image that a model is tested on is not one that it learns from.
_KEPT = {"test": 0, "val": 1, "train": 3, "": 4}
_OTHER = 2

CALIBRATION = "calibration"  # the split that chooses nothing in a training
DRAWN = (*SPLITS, CALIBRATION)  # the splits that shares are of; the last may be left out


@dataclass(frozen=True, slots=True)
class Checked:
    """An image that was read.

    :param digest: SHA-256 of the file; empty where it cannot be used
    :param error: why it cannot be used
    """

    found: Found
    digest: bytes = b""
    error: str = ""


@dataclass(frozen=True)
class Splitting:
    """How images get a split that their layout gives none.

    :param name: one split for all of them; "" splits them by the shares
    :param shares: those of train, val, test and, if there is a fourth, calibration; each source's images of a class are
        split by them
    """

    name: str = ""
    shares: tuple[float, ...] = (0.8, 0.1, 0.1)
    seed: int = 0

    def __post_init__(self) -> None:
        whole = len(self.shares) in (len(SPLITS), len(DRAWN)) and math.isclose(sum(self.shares), 1)
        if not whole or min(self.shares) < 0:
            given = ",".join(f"{share:g}" for share in self.shares)
            raise UserError(
                f"shares are {given} where those of {', '.join(SPLITS)} and perhaps calibration were expected, "
                "which sum to 1"
            )


@dataclass(frozen=True)
class LeftOut:
    """A file that is not in the table, and why."""

    path: Path
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


@dataclass(frozen=True)
class Index:
    """A data set's table.

    :param broken: files that cannot be used, and those that both classes claim
    :param copies: files whose bytes are in the table already, as another file
    """

    rows: list[Row]
    broken: list[LeftOut]
    copies: list[LeftOut]


def read_images(found: Iterable[Found], workers: int, *, verify: bool = True) -> Iterator[Checked]:
    """Reads every file once, in threads, in the order given.

    :param verify: whether each must decode too
    """
    ahead, budget = deque[Future[Checked]](), Budget(PIXEL_BYTES)
    with ThreadPoolExecutor(workers, thread_name_prefix="index") as pool:
        for ticket, one in enumerate(found):
            ahead.append(pool.submit(_read, one, verify, budget, ticket))
            if len(ahead) > 4 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def tabulate(images: Iterable[Checked], folder: Path, splitting: Splitting) -> Index:
    """Makes a table whose rows are in the order of the images.

    :param folder: the table's folder, which names are relative to
    :raises UserError: a split was named, and images have one already
    """
    images = list(images)
    broken = [LeftOut(image.found.path, image.error) for image in images if image.error]
    usable = [image for image in images if not image.error]
    disputed, copies = _repeated(usable)
    kept = [image for at, image in enumerate(usable) if at not in disputed and at not in copies]
    name = relative_to(folder)
    rows = [_row(one, name(one.path)) for one in _split(kept, splitting)]
    return Index(rows, [*broken, *disputed.values()], list(copies.values()))


def relative_to(folder: Path) -> Callable[[Path], str]:
    """Names of files as a table in the folder has them: relative, with forward slashes, `../` where that is needed.

    `..` leads out of the folder that a link points to, not of the one that holds the link. So the name of a file
    that is not below the folder starts from where the folder really is.
    """
    named, real = folder.absolute(), folder.resolve()

    def name(path: Path) -> str:
        place = (path.parent.resolve() / path.name) if ".." in path.parts else path.absolute()
        if place.is_relative_to(named):
            return place.relative_to(named).as_posix()
        try:
            return Path(os.path.relpath(place, real)).as_posix()
        except ValueError:  # another drive of Windows
            return place.as_posix()

    return name


def _read(found: Found, verify: bool, budget: Budget, ticket: int) -> Checked:
    """:param ticket: the image's number; the budget waits for every number in turn"""
    checked, picture = _opened(found, verify)
    with budget.held(ticket, picture.decoding_nbytes if picture else 0):
        try:
            if picture is not None:
                picture.load().close()
        except ImageError as error:
            return Checked(found, error=str(error))
    return checked


def _opened(found: Found, verify: bool) -> tuple[Checked, Picture | None]:
    """What is known of a file without decoding it, and the picture where it must be decoded too."""
    if found.label is None:
        return Checked(found, error="in no folder that tells its class"), None
    try:
        size_of(found.path)  # refuses what reading would wait for
        digest = bytes.fromhex(sha256_of(found.path))
        return Checked(found, digest), Picture.open(found.path) if verify else None
    except ImageError as error:
        return Checked(found, error=str(error)), None
    except OSError as error:
        return Checked(found, error=f"cannot be read: {error.strerror}"), None


def _repeated(images: Sequence[Checked]) -> tuple[dict[int, LeftOut], dict[int, LeftOut]]:
    """The images that both classes claim, and the copies that another file stands for; both by position."""
    groups: dict[bytes, list[int]] = {}
    for at, image in enumerate(images):
        groups.setdefault(image.digest, []).append(at)
    disputed, copies = dict[int, LeftOut](), dict[int, LeftOut]()
    for group in groups.values():
        found = [images[at].found for at in group]
        if len({one.label for one in found}) > 1:
            disputed |= {at: _disputed(one, found) for at, one in zip(group, found, strict=True)}
        elif len(group) > 1:
            stays = min(range(len(group)), key=lambda number: _KEPT.get(found[number].split, _OTHER))
            copies |= {at: _copy(images[at].found, found[stays]) for at in group if at != group[stays]}
    return disputed, copies


def _disputed(one: Found, group: Sequence[Found]) -> LeftOut:
    other = next(other for other in group if other.label != one.label)
    kinds = ("real", "AI-generated")
    return LeftOut(one.path, f"{kinds[one.label or 0]} here and {kinds[other.label or 0]} as {printable(other.path)}")


def _copy(one: Found, kept: Found) -> LeftOut:
    where = f", which stays in {kept.split}" if kept.split != one.split else ""
    return LeftOut(one.path, f"the same file as {printable(kept.path)}{where}")


def _split(images: Sequence[Checked], splitting: Splitting) -> list[Found]:
    """Gives a split to the images that have none, and keeps their order."""
    placed = [image.found for image in images]
    open_ = [at for at, one in enumerate(placed) if not one.split]
    if splitting.name and not open_:
        raise UserError(f"every image has a split by its folder: leave --split {splitting.name} out")
    strata: dict[tuple[str, int | None], list[int]] = {}
    for at in open_:
        strata.setdefault((placed[at].source, placed[at].label), []).append(at)
    for members in strata.values():
        ordered = sorted(members, key=lambda at: _shuffled(splitting.seed, images[at].digest))
        for at, split in zip(ordered, _splits(len(ordered), splitting), strict=True):
            placed[at] = replace(placed[at], split=split)
    return placed


def _shuffled(seed: int, digest: bytes) -> bytes:
    return hashlib.sha256(f"{seed}:".encode() + digest).digest()


def _splits(count: int, splitting: Splitting) -> list[str]:
    """The splits of one stratum; the size of each is within one image of its share."""
    if splitting.name:
        return [splitting.name] * count
    ends = [*(round(count * share) for share in accumulate(splitting.shares[:-1])), count]
    sizes = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
    return [split for split, size in zip(DRAWN, sizes, strict=False) for _ in range(size)]


def _row(one: Found, name: str) -> Row:
    assert one.label is not None, "an image without a class is broken"
    return Row(name, one.path, one.label, one.split, one.source)

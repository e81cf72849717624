"""Archives divided into parts and joined to the same bytes."""

import hashlib
import tarfile
from pathlib import Path

import numpy as np
import pytest
from gpu.offline.parts import CONTENTS, Contents, PackError, divide, gather, sites, unpack

MOST = 100_000


def archive(folder: Path, name: str, size: int) -> Path:
    """Of one file of noise, which does not get smaller."""
    (folder / name).mkdir()
    content = np.random.default_rng(size).bytes(size)
    (folder / name / f"{name}.bin").write_bytes(content)
    path = folder / f"{name}.tar.xz"
    with tarfile.open(path, "w:xz") as file:
        file.add(folder / name, ".")
    return path


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A small archive and one of more than two parts."""
    (tmp_path / "packed").mkdir()
    archives = [archive(tmp_path / "packed", name, size) for name, size in (("base", 5000), ("runtime", 200_000))]
    contents = Contents("3.12", 90, divide(archives, tmp_path / "kit", MOST))
    contents.write(tmp_path / "kit" / "a")
    return tmp_path / "kit"


def test_parts_are_filled_one_after_the_other(pack: Path, tmp_path: Path) -> None:
    """None is larger than it may be, and the slices are the archives, cut."""
    parts = sorted(pack.iterdir())
    assert [part.name for part in parts] == ["a", "b", "c"]
    sizes = [sum(path.stat().st_size for path in part.iterdir()) for part in parts]
    assert max(sizes) <= MOST
    assert sizes[1] == MOST - 10_000
    found = Contents.read(pack / "a")
    assert (found.python, found.architecture) == ("3.12", 90)
    assert [list(entry.slices) for entry in found.archives] == [
        ["base.tar.xz.00"],
        [f"runtime.tar.xz.{index:02}" for index in range(3)],
    ]
    for entry in found.archives:
        whole = b"".join(next(pack.rglob(name)).read_bytes() for name in entry.slices)
        assert whole == (tmp_path / "packed" / f"{entry.name}.tar.xz").read_bytes()
        assert entry.sha256 == hashlib.sha256(whole).hexdigest()


@pytest.mark.parametrize("order", ["abc", "cab"])
def test_gathered_parts_give_the_files_that_were_packed(pack: Path, tmp_path: Path, order: str) -> None:
    """In any order; what is whole is unpacked as soon as the list of contents is there."""
    work = tmp_path / "work"
    assert list(sites(work)) == []
    for letter in order:
        gather(pack / letter, work)
        missing = unpack(work) if (work / CONTENTS).exists() else None
        if letter == "a":
            assert [path.name for path in sites(work)] == ["base"]
            assert missing == [f"runtime.tar.xz.{index:02}" for index in ((1, 2) if order == "abc" else (1,))]
    assert missing == []
    assert [path.name for path in sites(work)] == ["base", "runtime"]
    for name in ("base", "runtime"):
        (found,) = (work / name).iterdir()
        assert found.read_bytes() == (tmp_path / "packed" / name / found.name).read_bytes()


def test_all_parts_at_once_and_twice(pack: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    for _ in range(2):
        gather(pack, work)
        assert unpack(work) == []


def test_another_pack_takes_the_place_of_the_last(pack: Path, tmp_path: Path) -> None:
    gather(pack, tmp_path / "work")
    unpack(tmp_path / "work")
    other = Contents("3.13", None, Contents.read(pack / "a").archives)
    other.write(pack / "a")
    gather(pack / "a", tmp_path / "work")
    assert list(sites(tmp_path / "work")) == []
    assert unpack(tmp_path / "work") == ["runtime.tar.xz.01", "runtime.tar.xz.02"]


def test_a_slice_that_was_spoilt_on_the_way(pack: Path, tmp_path: Path) -> None:
    path = pack / "b" / "runtime.tar.xz.01"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    gather(pack, tmp_path / "work")
    with pytest.raises(PackError, match="slices of runtime are not those that were packed"):
        unpack(tmp_path / "work")
    assert [found.name for found in sites(tmp_path / "work")] == ["base"]


def test_what_is_no_part(pack: Path, tmp_path: Path) -> None:
    with pytest.raises(PackError, match="holds no part of a pack"):
        gather(tmp_path / "nowhere", tmp_path / "work")
    gather(pack / "b", tmp_path / "work")
    with pytest.raises(PackError, match=r"no pack\.json yet: gather the part that holds it, a"):
        unpack(tmp_path / "work")

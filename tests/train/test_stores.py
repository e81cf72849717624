"""Stores give the very bytes of the files, whoever wrote them and whichever process reads them."""

import gzip
import io
import multiprocessing
import os
import pickle
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import lmdb
import numpy as np
import pytest
import typer

from spai_runtime.cli.commands import execute
from spai_runtime.errors import ImageError
from spai_train.commands import pack as command
from spai_train.data import pack as packing
from spai_train.data.pack import pack
from spai_train.data.regular import read_file
from spai_train.data.stores import Files, Lmdb, Store, StoreError, Tars, open_store
from spai_train.data.table import Row, write_table
from tests.support.commands import Ran, Run

NAMES = ("a.png", "deep/er/" + "x" * 150 + ".jpg", "../up.png", "ü/é \n.webp", os.fsdecode(b"latin-\xe9.png"), "z.png")
NOT_THERE = Row("gone.png", Path("gone.png"), 0, "", "s")


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """Files of random bytes, from 1 byte to 40 KB."""
    rng, root = np.random.default_rng(0), tmp_path / "files"
    rows = [Row(name, root / name, 0, "train", "s") for name in NAMES]
    for size, row in zip((1, 511, 512, 513, 5000, 40_000), rows, strict=True):
        row.path.parent.mkdir(parents=True, exist_ok=True)
        row.path.write_bytes(rng.bytes(size))
    return rows


def upstream_lmdb(path: Path, rows: Sequence[Row]) -> Path:
    """As mever-team/spai writes it."""
    database = lmdb.open(str(path), map_size=1 << 40, subdir=False, max_readers=128, lock=False, sync=False)
    for row in rows:
        with database.begin(write=True) as transaction:
            transaction.put(os.fsencode(row.name), row.path.read_bytes())
    database.close()
    return path


def plain_tars(folder: Path, rows: Sequence[Row], form: int = tarfile.GNU_FORMAT) -> Path:
    """Two shards, with folders and a link among the files."""
    folder.mkdir()
    for number in range(2):
        with tarfile.open(folder / f"{number}.tar", "w", format=form) as tar:
            for row in rows[number::2]:
                tar.add(row.path.parent, f"folder of {row.name}", recursive=False)
                tar.add(row.path, row.name)
            link = tarfile.TarInfo(f"link{number}.png")
            link.type, link.linkname = tarfile.SYMTYPE, "a.png"
            tar.addfile(link)
    return folder


@pytest.fixture(params=["files", "upstream.lmdb", "packed.lmdb", "gnu", "pax", "dots", "packed"])
def store(request: pytest.FixtureRequest, tmp_path: Path, rows: list[Row]) -> Store:
    path = tmp_path / request.param
    match request.param:
        case "files":
            return open_store(None)
        case "upstream.lmdb":
            upstream_lmdb(path, rows)
        case "gnu":
            plain_tars(path, rows)
        case "pax":
            plain_tars(path, rows, tarfile.PAX_FORMAT)
        case "dots":
            path = one_tar(tmp_path / "one.tar", {"./" + row.name: row.path.read_bytes() for row in rows})
        case _:
            assert pack(rows, Files(), path, 6000) == {}
    return open_store(path)


def one_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def contents(store: Store, rows: Sequence[Row]) -> list[bytes]:
    return [store.read(row) for row in rows]


def test_a_store_gives_the_bytes_of_the_files_in_any_order(store: Store, rows: list[Row]) -> None:
    for row in [*rows[::-1], *rows[::2]]:
        assert store.read(row) == row.path.read_bytes()


def test_what_is_not_there_is_missing_and_an_error_to_read(store: Store, rows: list[Row]) -> None:
    long = Row("n" * 2000, Path("n" * 200), 0, "", "s")
    assert store.missing(rows) == []
    assert store.missing([rows[0], NOT_THERE, rows[1], long]) == ["gone.png", long.name]
    for row in (NOT_THERE, long):
        with pytest.raises(ImageError, match=r"cannot be read: No such file|not in .*lmdb|in none of the shards"):
            store.read(row)


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_processes_read_a_store_that_was_read_here(store: Store, rows: list[Row]) -> None:
    expected = contents(store, rows)
    assert contents(pickle.loads(pickle.dumps(store)), rows) == expected
    child = multiprocessing.get_context("fork").Process(target=check, args=(store, rows, expected))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert contents(store, rows) == expected


def check(store: Store, rows: Sequence[Row], expected: Sequence[bytes]) -> None:
    assert contents(store, rows) == expected


def test_a_spawned_process_reads_stores(tmp_path: Path, rows: list[Row]) -> None:
    stores = [open_store(upstream_lmdb(tmp_path / "a.lmdb", rows)), open_store(plain_tars(tmp_path / "tars", rows))]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for store in stores:
            assert pool.apply(contents, (store, rows)) == [row.path.read_bytes() for row in rows]


def test_offsets_are_those_of_tarfile(tmp_path: Path, rows: list[Row]) -> None:
    folder = plain_tars(tmp_path / "tars", rows)
    expected: dict[str, tuple[int, int, int]] = {}
    for number in range(2):
        with tarfile.open(folder / f"{number}.tar") as tar:
            expected |= {m.name: (number, m.offset_data, m.size) for m in tar.getmembers() if m.isfile()}
    assert Tars(sorted(folder.iterdir())).places == expected
    assert set(expected) == set(NAMES)


def test_one_lmdb_is_opened_by_two_stores(tmp_path: Path, rows: list[Row]) -> None:
    path = upstream_lmdb(tmp_path / "a.lmdb", rows)
    train, val = open_store(path), open_store(path)
    assert contents(train, rows) == contents(val, rows)
    del train
    assert contents(val, rows) == [row.path.read_bytes() for row in rows]


def test_upstream_reads_what_is_packed(tmp_path: Path, rows: list[Row]) -> None:
    pack(rows, Files(), tmp_path / "a.lmdb")
    database = lmdb.open(str(tmp_path / "a.lmdb"), subdir=False, readonly=True, max_readers=128, lock=False)
    with database.begin(buffers=True) as transaction:
        for row in rows:
            assert transaction.get(os.fsencode(row.name)) == row.path.read_bytes()
    database.close()


def test_an_lmdb_grows_past_the_map_that_it_began_with(
    tmp_path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_MAP_BYTES", 1 << 15)
    pack(rows, Files(), tmp_path / "a.lmdb")
    assert contents(Lmdb(tmp_path / "a.lmdb"), rows) == [row.path.read_bytes() for row in rows]


def test_shards_are_cut_by_their_size_and_the_same_in_every_run(tmp_path: Path, rows: list[Row]) -> None:
    for folder in ("one", "two"):
        pack(rows, Files(), tmp_path / folder, shard_bytes=6000)
        for row in rows:
            os.utime(row.path, (0, 0))
    shards = sorted((tmp_path / "one").iterdir())
    assert [shard.name for shard in shards] == [f"shard-{number:06d}.tar" for number in range(len(shards))]
    held = []
    for shard in shards:
        assert shard.read_bytes() == (tmp_path / "two" / shard.name).read_bytes()
        with tarfile.open(shard) as tar:
            held.append([member.name for member in tar.getmembers()])
            assert {(m.mtime, m.uid, m.gid, m.uname) for m in tar.getmembers()} == {(0, 0, 0, "")}
    assert [name for names in held for name in names] == list(NAMES)
    assert len(held) == 3  # 4 small files, 5000 bytes, 40,000 bytes


def test_a_store_is_packed_from_another(tmp_path: Path, rows: list[Row]) -> None:
    pack(rows, open_store(upstream_lmdb(tmp_path / "a.lmdb", rows)), tmp_path / "tars")
    assert contents(open_store(tmp_path / "tars"), rows) == [row.path.read_bytes() for row in rows]


@pytest.mark.parametrize("output", ["out.lmdb", "out"])
def test_what_cannot_be_read_is_left_out_and_what_comes_twice_is_packed_once(
    tmp_path: Path, rows: list[Row], output: str
) -> None:
    rows[1].path.write_bytes(b"")
    left_out = pack([*rows, NOT_THERE, rows[0]], Files(), tmp_path / output)
    assert left_out == {rows[1].name: "the file is empty", "gone.png": "cannot be read: No such file or directory"}
    store = open_store(tmp_path / output)
    assert store.missing([*rows, NOT_THERE]) == [rows[1].name, "gone.png"]


def test_a_name_too_long_for_lmdb_is_left_out(tmp_path: Path, rows: list[Row]) -> None:
    long = Row("/".join(["n" * 200] * 3), rows[0].path, 0, "", "s")
    assert list(pack([*rows, long], Files(), tmp_path / "a.lmdb")) == [long.name]
    assert pack([*rows, long], Files(), tmp_path / "a") == {}


@pytest.mark.parametrize("output", ["out.lmdb", "out"])
def test_nothing_is_left_where_packing_fails(tmp_path: Path, rows: list[Row], output: str) -> None:
    before = {*tmp_path.iterdir()}
    other = Row(rows[0].name, rows[1].path, 0, "", "s")
    with pytest.raises(StoreError, match=r"a.png stands for .*a.png and for .*x.jpg; a store needs one"):
        pack([*rows, other], Files(), tmp_path / output)
    with pytest.raises(StoreError, match=r"there is no image to pack; gone.png: cannot be read"):
        pack([NOT_THERE], Files(), tmp_path / output)
    with pytest.raises(StoreError, match="there is no image to pack; the table: it has no row"):
        pack([], Files(), tmp_path / output)
    assert {*tmp_path.iterdir()} == before


def test_what_an_interrupted_run_left_is_no_obstacle_but_a_store_is(tmp_path: Path, rows: list[Row]) -> None:
    (tmp_path / "a.lmdb.partial").write_bytes(b"half")
    (tmp_path / "b.partial").mkdir()
    (tmp_path / "b.partial" / "shard-000000.tar").write_bytes(b"half")
    for name in ("a.lmdb", "b"):
        pack(rows, Files(), tmp_path / name)
        assert open_store(tmp_path / name).missing(rows) == []
        with pytest.raises(StoreError, match="is there already"):
            pack(rows, Files(), tmp_path / name)
    with pytest.raises(StoreError, match=r"name a .lmdb file, or a folder"):
        pack(rows, Files(), tmp_path / "c.tar")


def test_a_name_in_two_shards_or_twice_in_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    for name in ("1.tar", "2.tar"):
        one_tar(tmp_path / "two" / name, {"same.png": b"1", f"{name}.png": b"2"})
    with pytest.raises(StoreError, match=r"same.png is in .*1.tar and in .*2.tar"):
        open_store(tmp_path / "two")
    with pytest.raises(StoreError, match=r"a.png is twice in it"):
        open_store(one_tar(tmp_path / "one.tar", {"a.png": b"1", "./a.png": b"2"}))


def test_what_is_no_store_is_said(tmp_path: Path) -> None:
    tar = one_tar(tmp_path / "good.tar", {"a.png": b"x" * 5000, "b.png": b"y" * 5000})
    (tmp_path / "packed.tar.gz").write_bytes(gzip.compress(tar.read_bytes()))
    (tmp_path / "disguised.tar").write_bytes(gzip.compress(tar.read_bytes()))
    (tmp_path / "cut.tar").write_bytes(tar.read_bytes()[:7000])
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.lmdb").write_text("not a database" * 1000)
    (tmp_path / "text.zip").write_text("not an archive" * 1000)
    for name, message in {
        "gone.lmdb": "there is no store",
        "packed.tar.gz": "is compressed",
        "disguised.tar": "is compressed",
        "cut.tar": "is not a whole .tar.*unexpected end of data",
        "empty": "holds no .tar shard",
        "text.lmdb": "is not an LMDB file .*not an LMDB file",
        "text.zip": "is not a whole .tar, nor a .lmdb or a folder of .tar",
    }.items():
        with pytest.raises(StoreError, match=message):
            open_store(tmp_path / name)


def test_an_lmdb_that_is_cut_off_is_refused(tmp_path: Path, rows: list[Row]) -> None:
    rows[0].path.write_bytes(bytes(3 << 20))
    whole = upstream_lmdb(tmp_path / "whole.lmdb", rows).read_bytes()
    (tmp_path / "cut.lmdb").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match="is cut off"):
        open_store(tmp_path / "cut.lmdb")


def test_a_shard_that_shrinks_while_it_is_open(tmp_path: Path) -> None:
    path = one_tar(tmp_path / "a.tar", {"gone.png": b"x" * 20_000})
    store = open_store(path)
    os.truncate(path, 10_000)
    with pytest.raises(ImageError, match="shorter than when it was opened"):
        store.read(NOT_THERE)
    path.unlink()
    with pytest.raises(ImageError, match="No such file"):
        store.read(NOT_THERE)


def test_without_lmdb_the_extra_is_named(tmp_path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.lmdb").touch()
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(StoreError, match=r"pip install '\.\[train\]'"):
        open_store(tmp_path / "a.lmdb")
    with pytest.raises(StoreError, match=r"pip install '\.\[train\]'"):
        pack(rows, Files(), tmp_path / "b.lmdb")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_is_refused_where_it_would_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="not a regular file"):
        Files().read(Row("pipe.png", tmp_path / "pipe.png", 0, "", "s"))


@pytest.fixture
def spai_pack(capfd: pytest.CaptureFixture[str]) -> Run:
    app = typer.Typer()
    app.callback()(lambda: None)
    app.command("pack", epilog=command.EPILOG)(command.run)

    def call(*arguments: object) -> Ran:
        capfd.readouterr()
        code = execute(app, "spai-train", ["pack", *map(str, arguments)])
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


def test_the_command_packs_a_table(tmp_path: Path, rows: list[Row], spai_pack: Run) -> None:
    table = tmp_path / "files" / "table.csv"
    write_table(table, rows)
    ran = spai_pack(table, table, "--output", tmp_path / "a.lmdb")
    assert (ran.code, ran.stdout, ran.stderr) == (0, f"{tmp_path / 'a.lmdb'}\n", "")
    assert contents(open_store(tmp_path / "a.lmdb"), rows) == [row.path.read_bytes() for row in rows]


def test_the_command_names_what_is_left_out(tmp_path: Path, rows: list[Row], spai_pack: Run) -> None:
    table = tmp_path / "table.csv"
    write_table(table, [*rows, NOT_THERE])
    ran = spai_pack(table, "--root", tmp_path / "files", "--output", tmp_path / "shards", "--shard-size", 1)
    assert ran.code == 3
    assert ran.stderr.splitlines() == [
        "gone.png: cannot be read: No such file or directory",
        "left out because they cannot be read: 1",
    ]
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["shard-000000.tar"]


def test_the_command_says_in_one_line_what_is_wrong(tmp_path: Path, rows: list[Row], spai_pack: Run) -> None:
    write_table(tmp_path / "table.csv", rows)
    (tmp_path / "file").touch()
    for arguments, message in (
        (("gone.csv", "--output", tmp_path / "a"), "cannot read gone.csv: No such file or directory"),
        ((tmp_path / "table.csv", "--output", tmp_path / "file"), f"{tmp_path / 'file'} is there already"),
        ((tmp_path / "table.csv", "--output", tmp_path / "file" / "b.lmdb"), f"cannot write {tmp_path / 'file'}"),
    ):
        ran = spai_pack(*arguments)
        assert (ran.code, ran.stdout) == (2, "")
        assert ran.stderr.startswith(f"spai-train: {message}")
        assert ran.stderr.count("\n") == 1


def test_a_file_that_is_far_too_large_is_not_taken_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.touch()
    os.truncate(path, (2 << 30) + 1)  # which takes no room on the disk
    with pytest.raises(ImageError, match="a file of more than 2 GiB"):
        read_file(path)

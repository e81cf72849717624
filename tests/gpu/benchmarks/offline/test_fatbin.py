"""Machine code of other GPUs is zeroed, and not a byte beside it, in a library that is written out by hand."""

import struct
from pathlib import Path

import pytest
from gpu.offline import fatbin

ENTRY = 64  # bytes of an entry's header, as in ONNX Runtime's


def entry(architecture: int, code: bytes) -> bytes:
    header = struct.pack("<HHIQ12xI", 2, 0x101, ENTRY, len(code), architecture)
    return header.ljust(ENTRY, b"\xaa") + code


def container(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def library(sections: dict[str, bytes]) -> bytes:
    """An ELF64 file of these sections and no more than is read of one."""
    names, place, content, table = b"\0", {}, b"", []
    for name in (*sections, ".shstrtab"):
        place[name] = len(names)
        names += name.encode() + b"\0"
    for name, data in (*sections.items(), (".shstrtab", names)):
        table.append(struct.pack("<IIQQQQ24x", place[name], 1, 0, 0, 64 + len(content), len(data)))
        content += data
    header = b"\x7fELF\x02\x01\x01".ljust(40, b"\0") + struct.pack(
        "<QIHHHHHH", 64 + len(content), 0, 64, 0, 0, 64, len(table), len(table) - 1
    )
    return header + content + b"".join(table)


def kernels(architecture: int) -> bytes:
    return bytes([architecture]) * 40


CONTAINERS = (
    container(entry(80, kernels(80)), entry(90, kernels(90))),
    container(entry(90, kernels(91))) + bytes(48),  # the linker pads
    container(entry(75, kernels(75)), entry(90, b""), entry(120, kernels(120))),
)
# What looks like machine code elsewhere is none.
SECTIONS = {".text": container(entry(80, kernels(80))), ".nv_fatbin": b"".join(CONTAINERS), ".data": b"abc"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "lib.so"
    path.write_bytes(library(SECTIONS))
    return path


def test_code_of_other_architectures_is_zeroed_in_place(path: Path) -> None:
    assert fatbin.keep(path, 90) == 3 * 40
    wanted = library(
        {
            **SECTIONS,
            ".nv_fatbin": b"".join(
                (
                    container(entry(80, bytes(40)), entry(90, kernels(90))),
                    CONTAINERS[1],
                    container(entry(75, bytes(40)), entry(90, b""), entry(120, bytes(40))),
                )
            ),
        }
    )
    assert path.read_bytes() == wanted


def test_code_of_all_architectures_is_found(path: Path) -> None:
    found = [(code.architecture, code.length) for code in fatbin.codes(path.read_bytes())]
    assert found == [(80, 40), (90, 40), (90, 40), (75, 40), (90, 0), (120, 40)]


def test_an_architecture_that_is_not_there_changes_nothing(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"lib\.so holds 75, 80, 90, 120, and nothing for 86"):
        fatbin.keep(path, 86)
    assert path.read_bytes() == before


def test_a_library_without_machine_code(path: Path) -> None:
    path.write_bytes(library({".text": b"none"}))
    with pytest.raises(ValueError, match="no machine code of GPUs"):
        fatbin.keep(path, 90)

"""The zoo: rows that agree with the detectors and with themselves, and how they are shown."""

import csv
import io
import json
import re
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from spai_export import cli as exporter
from spai_runtime import zoo as exports
from spai_train.cli import main
from spai_train.detectors import DETECTORS, find
from spai_train.published import Entry
from spai_train.zoo import ZOO
from tests.support.boundary import HEAVY, python

DIMENSIONS: dict[str, dict[str, Any]] = {  # where they are not the defaults
    "community-forensics-224": {"side": 224, "resize": 256},
    "cospy-progan": {"width": 1024, "depth": 24, "vae": None, "projection": 768},
}

# Names in a checkpoint that say which tower it needs, where that is not the same for all of a detector's.
TENSORS = {"cospy-sd-v1-4": ("artifact.artifact_encoder.vae.quant_conv.bias",)}


def named(entry: Entry) -> str:
    return entry.name


@pytest.mark.parametrize("entry", ZOO.values(), ids=named)
def test_a_row_is_complete(entry: Entry) -> None:
    assert ZOO[entry.name] is entry
    assert exports._NAME.match(entry.name), "spai-run looks for no other in the cache"
    assert entry.file.source.startswith("https://")
    assert entry.file.name and entry.file.licence and entry.code_licence and entry.views
    assert entry.file.size is None or entry.file.size > 0
    assert entry.file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", entry.file.sha256)
    assert all(reported.figures and reported.source for reported in entry.reported)
    if entry.on_hub:
        assert entry.tower is None, "of what it downloads, spai-run exports the file alone"
        assert entry.file.source == f"https://huggingface.co/{entry.file.repo}"
        assert re.fullmatch(r"[0-9a-f]{40}", entry.file.revision), "a branch would give another file some day"
        assert entry.file.size and entry.file.sha256


def test_rows_differ() -> None:
    for field in ("sha256", "size"):
        values = [value for entry in ZOO.values() if (value := getattr(entry.file, field)) is not None]
        assert len({*values}) == len(values)
    assert len({(entry.file.source, entry.file.name) for entry in ZOO.values()}) == len(ZOO)


def test_detectors_are_known() -> None:
    assert {entry.detector for entry in ZOO.values()} <= {*DETECTORS}


@pytest.mark.parametrize("entry", ZOO.values(), ids=named)
def test_a_row_says_what_its_detector_says(entry: Entry) -> None:
    spec = find(entry.detector)
    assert entry.code_licence == spec.code_licence
    assert entry.tower == (
        spec.tower({name: torch.empty(0) for name in TENSORS.get(entry.name, ())}) if spec.tower else None
    )
    first = re.compile(r"[\w.-]+")  # the licence; what else is said of it is for people
    assert first.findall(entry.file.licence)[0] == first.findall(spec.weights_licence)[0]
    policy = msgspec.to_builtins(spec.views(spec.config(**DIMENSIONS.get(entry.name, {}))))
    resize = policy.get("resize") or {}
    sizes = [policy.get("size"), policy.get("minimum"), resize.get("side")]  # a whole image has none
    numbers = {size for size in sizes if size is not None}
    assert {int(number) for number in re.findall(r"\d+", entry.views)} == numbers
    assert resize.get("filter", "without a resize" if policy["policy"] != "tiles" else "tiles") in entry.views


@pytest.mark.parametrize("name", ["community-forensics", "community-forensics-224"])
def test_a_size_is_that_of_the_network(name: str) -> None:
    """In fp32, and the header of a safetensors file beside it, of which each tensor takes some hundred bytes."""
    spec = find(ZOO[name].detector)
    with torch.device("meta"):
        state = spec.build(spec.config(**DIMENSIONS.get(name, {}))).state_dict()
    weights = [tensor for name, tensor in state.items() if name.startswith(("encoder.backbone.", "head."))]
    size = ZOO[name].file.size
    assert size is not None
    assert 50 * len(weights) < size - 4 * sum(tensor.numel() for tensor in weights) < 200 * len(weights)


@pytest.mark.parametrize("name", [name for name, entry in ZOO.items() if not entry.on_hub])
def test_what_to_do_with_a_file(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    entry = ZOO[name]
    words = entry.export_line.split()
    assert exporter.main(["--help"]) == 0
    assert {*words[1::2]} <= {*re.findall(r"--[a-z]+", capsys.readouterr().out)}
    assert words[:3] == ["spai-export", "--detector", entry.detector]
    assert dict(zip(words[3::2], words[4::2], strict=True)) == {
        "--ckpt": entry.unpacked or entry.file.name,
        **({"--tower": entry.tower.name} if entry.tower else {}),
        "--output": name,
    }


# --------------------------------------------------------------------------------------------------- spai-train zoo


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["zoo", *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_csv_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(shown(capsys))))
    assert [row["name"] for row in rows] == list(ZOO)
    for row, entry in zip(rows, ZOO.values(), strict=True):
        assert (row["size"], row["sha256"]) == (str(entry.file.size or ""), entry.file.sha256 or "")
        assert row["tower"] == (entry.tower.name if entry.tower else "")
        assert row["command"].startswith(f"spai-run --detector {entry.name} " if entry.on_hub else "spai-export ")
        assert row["weights_licence"] == entry.file.licence
    assert rows == list(csv.DictReader(io.StringIO(shown(capsys, "--format", "csv"))))


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in shown(capsys, "--format", "jsonl").splitlines()]
    assert [row["name"] for row in rows] == list(ZOO)
    assert json.loads(shown(capsys, "dda", "--format", "jsonl")) == rows[list(ZOO).index("dda")]


def test_a_table_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    lines = shown(capsys).splitlines()
    firsts = [line.split()[0] for line in lines if line[0] != " "]
    assert firsts == ["name", *ZOO]
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("entry", ZOO.values(), ids=named)
def test_everything_on_one(entry: Entry, capsys: pytest.CaptureFixture[str]) -> None:
    said = shown(capsys, entry.name)
    file, tower = entry.file, entry.tower
    known = [file.source, file.licence, entry.code_licence, entry.views, file.sha256, entry.note]
    known += [text for reported in entry.reported for text in (reported.figures, reported.source)]
    known += [tower.name, tower.source, tower.licence] if tower else []
    known += [file.repo, file.revision] if entry.on_hub else [entry.export_line]
    assert [text for text in known if text and text not in said] == []
    assert said.count("not known") == (file.size is None) + (file.sha256 is None)
    assert "exported" not in said


def test_where_an_export_lies(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPAI_CACHE", str(tmp_path))
    folder = exports.directory("dda")
    folder.mkdir(parents=True)
    assert "exported" not in shown(capsys, "dda")
    (folder / "detector.json").write_text("{}")
    assert f"exported   {folder}, until you remove it\n" in shown(capsys, "dda")


def test_terms_that_must_be_accepted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ZOO, "dda", replace(ZOO["dda"], non_commercial=True))
    assert "`spai-run --detector dda --accept-licence INPUT`" in shown(capsys, "dda")


def test_a_name_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "rine-3class"]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert captured.err.startswith("spai-train: the zoo has no rine-3class (is it rine-")


def test_it_needs_no_torch() -> None:
    code = "from spai_train.cli import main\nassert main(['zoo']) == 0 == main(['zoo', 'spai'])"
    heavy = tuple(name for name in (*HEAVY, "huggingface_hub") if not name.startswith("spai_"))
    assert python(code, blocked=heavy).count("spai.pth") > 2


def test_columns_are_all_that_the_help_names(capsys: pytest.CaptureFixture[str]) -> None:
    header = shown(capsys, "--format", "csv").partition("\n")[0].split(",")
    assert main(["zoo", "--help"]) == 0
    named = re.search(r"Columns: (.*?)\. What", " ".join(capsys.readouterr().out.split()))
    assert named is not None
    assert named.group(1).split(", ") == header
    assert len(header) > len(fields(Entry))

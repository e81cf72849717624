"""A whole measurement of benchmarks/cpu with the tiny model, on this machine, and the processes that it starts."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import models
import pytest
from cpu import bench, encoder, exports, fresh_run, images, latency, run, scores, start
from cpu.children import ChildError
from cpu.contender import CONTENDERS, Contender
from cpu.measurement import measure
from cpu.settings import PARTS, Settings
from cpu.table import HEAD, tables
from json_files import rounded
from PIL import Image

from spai_runtime.manifest import FILE_NAME, Graph, Manifest
from spai_train.detectors.spai.model import SPAIConfig

EXAMPLES = Path(__file__).parents[2] / "examples"
SETTINGS = Settings(model="tiny", seconds=0.01, rounds=1)


def called_int8(directory: Path, _: list[Path]) -> Path:
    """Its fp32 graphs, of which one more is said to be of int8: what a quantiser writes, but for the numbers in it."""
    output = Path(tempfile.gettempdir()) / f"{directory.name}-int8"
    if not output.exists():
        shutil.copytree(directory, output)
        shutil.copy(output / "encoder.onnx", output / "encoder.int8.onnx")
        manifest = Manifest.load(output)
        (fp32,) = manifest.artifacts
        int8 = replace(fp32, precision="int8", encoder=Graph.of(output / "encoder.int8.onnx"), target={"device": "cpu"})
        (output / FILE_NAME).write_bytes(replace(manifest, artifacts=(fp32, int8)).dump())
    return output


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, tiny_config: SPAIConfig) -> Iterator[Path]:
    """A tiny model, exported once to a folder of these tests'; images of four tiles; scenes that need no simulation."""
    folder = tmp_path_factory.mktemp("tiny")
    table = "image,class,split,source\n{0}/real_{1},0,test,real\n{0}/generated_{2},1,test,some\n"
    (folder / "images.csv").write_text("image,class,split\nsome.png,0,val\n")
    (folder / "png.csv").write_text(table.format(EXAMPLES, "1.png", "1.png"))
    (folder / "jpeg.csv").write_text(table.format(EXAMPLES, "3.jpg", "3.jpg"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.setattr(exports, "quantised", called_int8)
        patch.setattr(exports, "demo_scenes", lambda _: folder)
        patch.setattr(encoder, "apart", lambda load: load)  # another process would know nothing of all this
        patch.setattr(run, "exported_detector", lambda _: models.exported("tiny"))
        patch.setattr(scores, "demo_scenes", lambda _: folder)
        patch.setattr(images, "PIECES", 2)
        patch.setattr(bench, "FILES", 8)
        patch.setattr(bench, "SIZES", ((2 * tiny_config.tile_size,) * 2,))
        patch.setattr(bench, "MEGAPIXEL", (100, 70))
        patch.setitem(models.CONFIGS, "tiny", tiny_config)
        yield folder


@pytest.mark.usefixtures("tiny")
def test_every_row_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the processes of its own that latencies and starts have: see below."""
    monkeypatch.setattr(latency, "latencies", lambda *_: [0.25, 0.25, 0.75])
    monkeypatch.setattr(start, "started", lambda _, paths: start.Started(len(paths), 10**9 // len(paths)))
    result = measure(SETTINGS, tmp_path).content
    rows = {f"{row['backend']} {row['precision']}": row for row in result["rows"]}
    assert list(rows) == ["PyTorch fp32", *(contender.name for contender in CONTENDERS)]
    present = {contender.name: rows[contender.name] for contender in CONTENDERS if not contender.absent()}
    for name, row in present.items():
        errors = {part: row[part]["error"] for part in PARTS if "error" in row.get(part, {})}
        assert errors == {}, name
        assert row["encoder"]["ratio"] > 0
        assert row["encoder"]["batch"] in (1, 2, 4, 8)
        assert row["latency"]["two_cores"] == {"p50_s": 0.25, "p99_s": pytest.approx(0.74), "images": 3}
        assert row["start"] == {"images": 4, "first_start_s": 4, "second_start_s": 1, "peak_mb": 1000}
        assert row["run"]["images"] == 8
        assert row["scores"]["auc"].keys() == {"png", "jpeg"}
        assert row["scores"]["images"] == 4
        assert ("beside" in row) == (row["precision"] != "int8")
    assert present["ONNX Runtime fp32"]["scores"]["score_difference"] == 0
    assert 0 < present["OpenVINO fp32"]["scores"]["score_difference"] < 1e-5
    assert present["OpenVINO fp32"]["encoder"]["relative_difference"] < 2e-5
    (path,) = tmp_path.glob("cpu-*-tiny.json")
    assert json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(rounded(result)))
    assert result["complete"] is True
    assert len(tables([result]).split("\n\n")[1].splitlines()) == 2 + 1 + len(CONTENDERS)


@pytest.mark.usefixtures("tiny")
def test_what_is_absent_is_a_row_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Contender, "absent", lambda self: "" if self.backend == "onnxruntime" else "not here")
    result = measure(replace(SETTINGS, parts=("encoder",), backends=("fp32",)), None).content
    assert [row.keys() - {"backend", "precision"} for row in result["rows"]] == [{"encoder"}, {"encoder"}, {"absent"}]
    contenders = tables([result]).split("\n\n")[1]
    assert f"| OpenVINO fp32 | not run: not here {'|  ' * (len(HEAD) - 1)}|" in contenders


@pytest.mark.usefixtures("tiny")
def test_a_contender_that_fails_is_a_row_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Contender.load

    def fails(self: Contender, directory: Path) -> Any:
        if self.backend == "openvino":
            raise RuntimeError(f"cannot read {directory}/encoder.onnx")
        return load(self, directory)

    monkeypatch.setattr(Contender, "load", fails)
    result = measure(replace(SETTINGS, parts=("encoder", "run"), backends=("fp32",)), None).content
    upstream, ours, other = result["rows"]
    assert other["encoder"] == other["run"] == {"error": "RuntimeError: cannot read encoder.onnx"}
    assert ours["encoder"]["tiles_per_s"] > 0
    assert ours["run"]["images_per_s"] > 0
    assert upstream.keys() == {"backend", "precision", "encoder"}


@pytest.fixture
def small_image(tmp_path: Path) -> Path:
    path = tmp_path / "small.png"
    Image.new("RGB", (64, 64)).save(path)
    return path


@pytest.mark.usefixtures("tiny")
def test_latencies_are_of_a_process_with_that_many_cores(small_image: Path) -> None:
    options = [str(models.exported("tiny")), "onnxruntime", "fp32"]
    found = latency.latencies(options, [small_image, small_image], cores=1, seconds=0)
    assert len(found) == 3
    assert all(seconds > 0 for seconds in found)
    with pytest.raises(ChildError, match="nowhere"):
        latency.latencies(["nowhere", *options[1:]], [small_image, small_image], cores=1, seconds=0)


@pytest.mark.usefixtures("tiny")
def test_a_fresh_run_says_its_time_and_memory(small_image: Path) -> None:
    options = ["--engine", str(models.exported("tiny")), *CONTENDERS[0].options]
    found = start.started(options, [small_image])
    assert found.seconds > 0
    assert found.peak is not None
    assert 50e6 < found.peak < 400e6  # of a process with NumPy and ONNX Runtime, not of one with torch
    with pytest.raises(ChildError, match="there is no nowhere"):
        start.started(["--engine", "nowhere"], [small_image])


def test_peak_of_what_the_kernel_says() -> None:
    assert fresh_run.peak("some warning\nVmHWM:\t  120000 kB\n") == 122_880_000
    assert fresh_run.peak("no such line\n") is None

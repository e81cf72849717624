"""Whatever a detector.json holds: a ManifestError of one line, or a detector whose cost is bounded."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spai_runtime import Detector
from spai_runtime.errors import EngineError, ImageError, ManifestError, UserError
from spai_runtime.exported import Exported
from spai_runtime.loading import load_engines
from spai_runtime.manifest import FILE_NAME, LARGEST_FILE, Manifest
from spai_runtime.views.policy import MOST_VIEWS
from tests.support.commands import Run
from tests.support.images import Write
from tests.support.manifests import MANIFEST, SHA

DEEP = 5000
LARGE = (13_000, 13_000)  # 169 megapixels, which are decoded


def changed(**changes: Any) -> bytes:
    return json.dumps({**json.loads(MANIFEST.dump()), **changes}).encode()


def graph(file: Any) -> bytes:
    (artifact,) = json.loads(MANIFEST.dump())["artifacts"]
    return changed(artifacts=[{**artifact, "encoder": {"file": file, "sha256": SHA}}])


def views(**changes: Any) -> bytes:
    return changed(views={"policy": "tiles", **changes})


def nested(opening: str, closing: str, depth: int = DEEP) -> bytes:
    return changed(provenance="HERE").replace(b'"HERE"', (opening * depth + "1" + closing * depth).encode())


def curve(points: int, **changes: Any) -> bytes:
    line = list(range(points))
    fields = {"method": "isotonic", "logits": line, "scores": [one / points for one in line], "source": "", **changes}
    return changed(calibration=fields)


def number(text: str, field: str = "features") -> bytes:
    return re.sub(rb'"' + field.encode() + rb'": [^,}]+', f'"{field}": {text}'.encode(), changed())


REFUSED: dict[str, Callable[[], bytes]] = {
    "lists in lists": lambda: nested("[", "]"),
    "objects in objects": lambda: nested('{"a":', "}"),
    "nothing but brackets": lambda: b"[" * 100_000,
    "larger than any": lambda: changed(notice="x" * LARGEST_FILE),
    "a file name of 5,000 characters": lambda: graph("e" * 5000 + ".onnx"),
    "a file name with NUL": lambda: graph("e\0.onnx"),
    "a file name with a line feed": lambda: graph("e\n.onnx"),
    "a file name that ends in one": lambda: graph("encoder.onnx\n"),
    "a file name with an escape": lambda: graph("\x1b[2Jencoder.onnx"),
    "a file name with DEL": lambda: graph("encoder\x7f.onnx"),
    "a file name on another drive": lambda: graph("C:encoder.onnx"),
    "a file name that is a number": lambda: graph(5),
    "a name of a million characters": lambda: changed(name="n" * 10**6),
    "a detector of a million characters": lambda: changed(detector="n" * 10**6),
    "2^40 features": lambda: changed(features=2**40),
    "2^70 features": lambda: changed(features=2**70),
    "a million features": lambda: changed(features=10**6),
    "-1 features": lambda: changed(features=-1),
    "features beyond any integer": lambda: number("9" * 5000),
    "features that are no number": lambda: number("NaN"),
    "features without end": lambda: number("Infinity"),
    "features beyond float64": lambda: number("1e999"),
    "a threshold that is no number": lambda: number("NaN", "value"),
    "a threshold without end": lambda: number("-Infinity", "value"),
    "a threshold beyond float64": lambda: number("1e999", "value"),
    "a schema beyond 64 bits": lambda: changed(schema=2**70),
    "a schema that is true": lambda: changed(schema=True),
    "a side of 2^40": lambda: views(size=2**40),
    "a side of a million": lambda: views(size=10**6),
    "a side of 2^70": lambda: views(size=2**70),
    "a stride of 2^70": lambda: views(stride=2**70),
    "a stride of -1": lambda: views(stride=-1),
    "a resize to 2^40": lambda: views(resize={"side": 2**40}),
    "a resize to a million": lambda: views(resize={"side": 10**6, "rule": "square"}),
    "a crop of 2^40": lambda: changed(views={"policy": "centre_crop", "size": 2**40}),
    "ten crops of 2^70": lambda: changed(views={"policy": "ten_crop", "size": 2**70}),
    "a whole image at 2^40": lambda: changed(views={"policy": "whole", "resize": {"side": 2**40}}),
    "a resize in a list": lambda: views(resize=[{"side": 8}]),
    "views that are a list": lambda: changed(views=[]),
    "a million points": lambda: curve(300_000),
    "points that do not end": lambda: curve(2, logits=[0, 10**400]),
    "a slope beyond float64": lambda: changed(calibration={"method": "platt", "a": 10**400, "b": 0, "source": ""}),
    "a thousand artifacts": lambda: changed(artifacts=json.loads(changed())["artifacts"] * 1000),
    "artifacts that are none": lambda: changed(artifacts=[None]),
    "half a character": lambda: changed().replace(b"threshold", b"thr\xffshold"),
    "half a surrogate": lambda: changed(notice="HERE").replace(b"HERE", rb"\ud800"),
}

LOADS: dict[str, Callable[[], bytes]] = {
    "lists in lists": lambda: nested("[", "]", 100).replace(b'"provenance"', b'"colours"'),
    "a minimum of 2^40": lambda: views(minimum=2**40),
    "a field twice": lambda: changed().replace(b"{", b'{"features": 7, ', 1),
    "no artifacts": lambda: changed(artifacts=[]),
    "a stride of 1": lambda: views(size=1, stride=1),
    "a stride of 100": lambda: views(size=1, stride=100),
    "many features of many views": lambda: changed(
        features=1 << 16, views={"policy": "tiles", "size": 64, "stride": 64}
    ),
    "the largest side": lambda: views(size=8192, stride=8192),
    "a target of anything": lambda: changed(
        artifacts=[{**json.loads(changed())["artifacts"][0], "kind": "tensorrt", "target": {"batch_size": 2**70}}]
    ),
    "a kind that nobody knows": lambda: changed(artifacts=[{**json.loads(changed())["artifacts"][0], "kind": "\x1b"}]),
    "a name of control characters": lambda: changed(name="\x1b[2J\n"),
    "a name of a file that no system has": lambda: graph("\u00e9" * 255),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / FILE_NAME).write_bytes(REFUSED[name]())
    with pytest.raises(ManifestError, match=r"detector\.json|schema") as caught:
        Manifest.load(tmp_path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", LOADS)
def test_what_is_none_of_the_files_business_ends_elsewhere(tmp_path: Path, name: str) -> None:
    (tmp_path / FILE_NAME).write_bytes(LOADS[name]())
    manifest = Manifest.load(tmp_path)
    try:
        layout = manifest.layout(*LARGE)
    except ImageError as error:
        assert re.match(r"13000×13000 pixels (have|make) \d+ views", str(error))
    else:
        assert 4 * len(layout) * manifest.features <= 1 << 30
        assert len(layout) <= MOST_VIEWS
    with pytest.raises(EngineError):
        load_engines(Exported.open(tmp_path))


def test_a_file_without_end(tmp_path: Path) -> None:
    with (tmp_path / FILE_NAME).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ManifestError, match="it has more than 8 MiB"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("threshold", ["nan", "inf", "-inf"])
def test_a_threshold_of_the_user(tiny_detector: Path, run: Run, photo: Write, threshold: str) -> None:
    ran = run(photo("a.png", 40, 50), "--engine", tiny_detector, "--threshold", threshold)
    assert (ran.code, ran.stderr.count("\n")) == (2, 1)
    with pytest.raises(UserError, match="give one from 0 to 1"):
        Detector.load(tiny_detector, device="cpu", threshold=float(threshold))


@pytest.mark.parametrize("size", [2**62, 2**70])
def test_a_batch_that_no_memory_holds(tiny_detector: Path, run: Run, photo: Write, size: int) -> None:
    ran = run(photo("a.png", 40, 50), "--engine", tiny_detector, "--device", "cpu", "--batch-size", size)
    assert (ran.code, ran.stderr.count("\n")) == (2, 1)
    assert f"there is no memory for {size} views at once: give a smaller --batch-size" in ran.stderr

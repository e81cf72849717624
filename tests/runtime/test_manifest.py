"""detector.json: read back as written, and refused in one sentence where it is not one."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spai_runtime.calibration import Calibration, Isotonic, Platt
from spai_runtime.errors import ManifestError
from spai_runtime.manifest import FILE_NAME, SCHEMA, Manifest
from spai_runtime.views import WholeImage, Window
from tests.support.manifests import MANIFEST, SHA


def written(folder: Path, **changes: Any) -> Path:
    """A directory whose detector.json has these changes; None takes a field away."""
    fields = {**json.loads(MANIFEST.dump()), **changes}
    content = json.dumps({name: value for name, value in fields.items() if value is not None})
    (folder / FILE_NAME).write_text(content, encoding="utf-8")
    return folder


def artifacts(**changes: Any) -> list[dict[str, Any]]:
    """The artifact of the manifest, with these changes."""
    (artifact,) = json.loads(MANIFEST.dump())["artifacts"]
    return [{**artifact, **changes}]


def test_round_trip(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(MANIFEST.dump())
    assert Manifest.load(tmp_path) == MANIFEST


def test_the_file_is_json_that_begins_with_its_schema() -> None:
    fields = json.loads(MANIFEST.dump())
    assert next(iter(fields.items())) == ("schema", 3)
    tiles = {"size": 32, "stride": 16, "minimum": 0, "policy": "tiles", "padding": "reflect", "resize": None}
    assert fields["views"] == tiles
    (artifact,) = fields["artifacts"]
    assert (artifact["kind"], artifact["precision"]) == ("onnx", "fp32")
    assert artifact["encoder"] == {"file": "encoder.onnx", "sha256": SHA}
    assert fields["name"] == "d\u00e9mo"


def test_windows_are_what_earlier_versions_refuse(tmp_path: Path) -> None:
    """They would run the graph on the whole image, and be told that its features are too many."""
    whole = replace(MANIFEST, views=WholeImage(window=Window(20, 4, 4, 2)))
    (tmp_path / FILE_NAME).write_bytes(whole.dump())
    assert json.loads(whole.dump())["schema"] == SCHEMA == 4
    assert Manifest.load(tmp_path) == whole
    assert json.loads(replace(MANIFEST, views=WholeImage()).dump())["schema"] == 3


def test_fields_of_a_later_minor_version_are_ignored(tmp_path: Path) -> None:
    assert Manifest.load(written(tmp_path, colours={"curve": [1, 2]})) == MANIFEST


PLATT, ISOTONIC = Platt(1.5, -0.25, "measured"), Isotonic((-2.0, 0.5, 3.0), (0.0, 0.25, 1.0), "measured")


@pytest.mark.parametrize("calibration", [PLATT, ISOTONIC])
def test_a_calibration_is_read_back(tmp_path: Path, calibration: Calibration) -> None:
    manifest = replace(MANIFEST, calibration=calibration)
    (tmp_path / FILE_NAME).write_bytes(manifest.dump())
    assert Manifest.load(tmp_path) == manifest


OLD_VIEWS = {"size": 32, "stride": 16, "minimum": 0, "policy": "tiles"}


@pytest.mark.parametrize("schema", [1, 2])
def test_older_schemas_name_one_pair_of_graphs(tmp_path: Path, schema: int) -> None:
    graphs = {name: {"file": f"{name}.onnx", "sha256": SHA} for name in ("encoder", "head")}
    old = {"schema": schema, "views": OLD_VIEWS, "precision": "fp32", **graphs, "artifacts": None}
    assert Manifest.load(written(tmp_path, **old)) == MANIFEST
    old["views"] = {name: value for name, value in OLD_VIEWS.items() if name != "policy"}
    assert Manifest.load(written(tmp_path, **old)) == MANIFEST


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": None}, "missing required field `encoder`"),
        ({"encoder": {"file": "../e.onnx", "sha256": SHA}}, "file"),
        ({"precision": None}, "missing required field `precision`"),
        ({"plan": {"encoder": 5}}, "encoder"),
        ({"plan": []}, "artifacts"),
        ({"provenance": {"gate": {"passed": True}}}, "missing required field"),
        ({"provenance": 7}, "provenance"),
    ],
)
def test_malformed_fields_of_older_schemas(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    graphs = {name: {"file": f"{name}.onnx", "sha256": SHA} for name in ("encoder", "head")}
    old = {"schema": 2, "views": OLD_VIEWS, "precision": "fp32", **graphs, "artifacts": None, **changes}
    with pytest.raises(ManifestError, match=f"is not a detector.json: .*{message}"):
        Manifest.load(written(tmp_path, **old))


def test_a_calibration_names_its_method() -> None:
    fields = json.loads(replace(MANIFEST, calibration=PLATT).dump())
    assert fields["calibration"] == {"method": "platt", "a": 1.5, "b": -0.25, "source": "measured"}
    fields = json.loads(replace(MANIFEST, calibration=ISOTONIC).dump())
    assert fields["calibration"]["method"] == "isotonic"
    assert fields["calibration"]["logits"] == [-2, 0.5, 3]


def curve(logits: list[float], scores: list[float]) -> dict[str, Any]:
    return {"method": "isotonic", "logits": logits, "scores": scores, "source": ""}


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ({"method": "beta", "source": ""}, "method"),
        ({"method": "platt", "a": 1.0, "source": ""}, "missing required field `b`"),
        ({"method": "platt", "a": 1.0, "b": 0.0}, "missing required field `source`"),
        ({"method": "platt", "a": 0.0, "b": 0.0, "source": ""}, "> 0"),
        ({"method": "platt", "a": -1.0, "b": 0.0, "source": ""}, "> 0"),
        (curve([], []), "length"),
        (curve([0, 1], [0.5]), "2 logits for 1 scores"),
        (curve([1, 0], [0.2, 0.3]), "logits must rise strictly"),
        (curve([0, 0], [0.2, 0.3]), "logits must rise strictly"),
        (curve([0, 1], [0.3, 0.2]), "scores must never fall"),
        (curve([0, 1], [0.2, 1.1]), "<= 1"),
    ],
)
def test_a_malformed_calibration(tmp_path: Path, calibration: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=f"is not a detector.json: .*{message}"):
        Manifest.load(written(tmp_path, calibration=calibration))


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_calibration_is_finite(number: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Platt(1.0, number, "")
    with pytest.raises(ValueError, match="finite"):
        Isotonic((0.0, number), (0.0, 1.0), "")


@pytest.mark.parametrize("changes", [{}, {"views": {"new": True}}, {"artifacts": {"fp4": 1}}])
def test_a_newer_schema_says_to_upgrade(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ManifestError, match=rf"schema {SCHEMA + 1}.* reads up to {SCHEMA}: upgrade spai-toolkit"):
        Manifest.load(written(tmp_path, schema=SCHEMA + 1, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": None}, "missing required field `schema`"),
        ({"schema": "1"}, "schema"),
        ({"schema": 0}, "schema"),
        ({"features": None}, "missing required field `features`"),
        ({"features": 0}, "features"),
        ({"features": "20"}, "features"),
        ({"artifacts": artifacts(encoder={"file": "encoder.onnx"})}, "missing required field `sha256`"),
        ({"artifacts": artifacts(encoder={"file": "encoder.onnx", "sha256": "short"})}, "sha256"),
        ({"artifacts": artifacts(kind=None)}, "kind"),
        ({"threshold": {"value": 1.5, "source": ""}}, "value"),
        ({"threshold": {"value": -0.1, "source": ""}}, "value"),
        ({"threshold": {"value": 0.5}}, "source"),
        ({"artifacts": artifacts(precision="fp12")}, "precision"),
        ({"views": {**OLD_VIEWS, "stride": 0}}, "both must be at least 1"),
        ({"views": {**OLD_VIEWS, "size": -1}}, "both must be at least 1"),
        ({"views": {"policy": "hexagons"}}, "policy"),
    ],
)
def test_malformed_fields_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=f"is not a detector.json: .*{message}"):
        Manifest.load(written(tmp_path, **changes))


@pytest.mark.parametrize(
    "name",
    ["../encoder.onnx", "/etc/passwd", "sub/encoder.onnx", "..", ".hidden", "", "..\\encoder.onnx", "C:\\encoder.onnx"],
)
def test_a_graph_lies_in_the_directory_itself(tmp_path: Path, name: str) -> None:
    with pytest.raises(ManifestError, match="file"):
        Manifest.load(written(tmp_path, artifacts=artifacts(encoder={"file": name, "sha256": SHA})))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe{}", b'{"schema": 1, "name": "\xe9"}'])
def test_what_is_no_json_object(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(ManifestError, match=r"is not a detector\.json"):
        Manifest.load(tmp_path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"cannot read .*detector\.json: No such file"):
        Manifest.load(tmp_path)

"""A manifest, and detector.json edited in place."""

import hashlib
import json
from pathlib import Path
from typing import Any

from spai_runtime.manifest import Artifact, Graph, Manifest, Threshold
from spai_runtime.views import Tiles

SHA = "0123456789abcdef" * 4
MANIFEST = Manifest(
    name="d\u00e9mo",
    detector="spai",
    views=Tiles(32, 16, 0),
    features=20,
    threshold=Threshold(0.25, "measured"),
    notice="a notice",
    artifacts=(Artifact("onnx", "fp32", Graph("encoder.onnx", SHA), Graph("head.onnx", SHA)),),
    provenance={"tools": {"torch": "2.9"}},
)


def edit(directory: Path, **changes: Any) -> None:
    """Changes detector.json, and writes the digests of the graphs as they are."""
    path = directory / "detector.json"
    fields = {**json.loads(path.read_bytes()), **changes}
    for graph in [artifact[part] for artifact in fields["artifacts"] for part in ("encoder", "head")]:
        graph["sha256"] = hashlib.sha256((directory / graph["file"]).read_bytes()).hexdigest()
    path.write_text(json.dumps(fields))

"""What the hub reads of a card: YAML between two lines of dashes, at the very beginning."""

import json
import re

from spai_runtime.manifest import ONNX, PLANS, Manifest
from spai_runtime.text import visible

# What the hub calls licences that it knows; what it does not know is `other`, and the card's text says it.
_LICENCES = {"Apache-2.0": "apache-2.0", "MIT": "mit"}
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def front_matter(manifest: Manifest) -> str:
    """The metadata of a card: what detector.json says, and nothing where it says nothing.

    Each value is one line of JSON, which YAML reads as it is.
    """
    fields = {
        "license": _licence(manifest),
        "library_name": "spai-toolkit",
        "pipeline_tag": "image-classification",
        "base_model": _base(manifest),
        "tags": _tags(manifest),
    }
    lines = (f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in fields.items() if value)
    return f"---\n{''.join(lines)}---\n"


def _licence(manifest: Manifest) -> str | None:
    licences = manifest.provenance.get("licences")
    weights = licences.get("weights") if isinstance(licences, dict) else None
    return _LICENCES.get(str(weights), "other") if weights else None


def _base(manifest: Manifest) -> str | None:
    """The repository on the hub that the checkpoint came from."""
    published = manifest.provenance.get("published")
    repository = str(published.get("repo", "")) if isinstance(published, dict) else ""
    return repository if _REPOSITORY.fullmatch(repository) else None


def _tags(manifest: Manifest) -> list[str]:
    kinds = {artifact.kind for artifact in manifest.artifacts}
    found = ["onnx"] * (ONNX in kinds) + ["tensorrt"] * bool(kinds.intersection(PLANS))
    return ["ai-generated-image-detection", "image-forensics", visible(manifest.detector), *found]

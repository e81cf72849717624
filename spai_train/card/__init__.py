"""The model card of an exported directory: README.md in the format of the Hugging Face hub, from detector.json alone.

A card that we wrote is written again whenever detector.json is. Any other README.md is its user's and stays.
"""

import stat
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from spai_runtime.accuracy import sentence
from spai_runtime.files.atomic import atomic_write
from spai_runtime.manifest import FILE_NAME as DETECTOR
from spai_runtime.manifest import Artifact, Manifest
from spai_train.card.front_matter import front_matter
from spai_train.card.markdown import escaped

FILE_NAME = "README.md"
MARK = f"<!-- spai-toolkit writes this card anew when {DETECTOR} changes: remove this line to keep what you write -->"
_TEMPLATE = Path(__file__).with_name("card.md.jinja")
_BEGINNING = 1 << 16  # bytes of a README.md that MARK is looked for in; it stands behind the front matter

_AREAS = {
    "tiles": "every tile of {}, or five crops of an image with few tiles",
    "centre_crop": "one crop of {} from the middle",
    "ten_crop": "ten crops of {}: corners and centre, and the same mirrored",
    "whole": "the whole image",
}


def content(manifest: Manifest) -> str:
    """The card of a detector.

    Names and sentences that detector.json holds may be anybody's: they come out as text, never as Markdown or HTML.

    :returns: Markdown behind YAML front matter
    """
    environment = Environment(
        autoescape=False,  # of HTML: `finalize` escapes what Markdown reads, HTML included
        finalize=escaped,
        keep_trailing_newline=True,
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    facts = {
        "manifest": manifest,
        "rows": [(artifact, _form(artifact), _check(artifact)) for artifact in manifest.artifacts],
        "digests": {graph.file: graph.sha256 for one in manifest.artifacts for graph in (one.encoder, one.head)},
        "licences": _licences(manifest),
        "views": _views(manifest),
    }
    body = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(facts)
    return f"{front_matter(manifest)}{MARK}\n\n{body}"


def is_users(directory: Path) -> bool:
    """Whether a directory has a README.md that is not ours to write."""
    path = directory / FILE_NAME
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return True
        with path.open("rb") as file:
            return MARK.encode() not in file.read(_BEGINNING)
    except FileNotFoundError:
        return False
    except OSError:
        return True


def write(manifest: Manifest, folder: Path) -> None:
    """Writes the card into a folder, over any README.md there: ask `is_users` first.

    :raises OSError: it cannot be written
    """
    with atomic_write(folder / FILE_NAME) as part:
        part.write_bytes(content(manifest).encode())


def _form(artifact: Artifact) -> str:
    """What the files are, and what they were built for."""
    return ", ".join([artifact.kind, *(f"{key} {value}" for key, value in artifact.target.items())])


def _check(artifact: Artifact) -> str:
    """What the accuracy check found."""
    if artifact.accuracy is None:
        return artifact.unscored or "what others are compared with"
    found = sentence(artifact.accuracy)
    return found if artifact.passed else f"NOT PASSED, the limit is {artifact.accuracy.limit:g}: {found}"


def _views(manifest: Manifest) -> str:
    """What the detector looks at, in words."""
    views = manifest.views
    height, width = views.shape
    area = _AREAS[str(views.__struct_config__.tag)].format(f"{width}×{height} pixels")
    return f"{area}, after a resize of the image" if views.resize else area


def _licences(manifest: Manifest) -> dict[str, str]:
    """The licences of `code` and `weights`, as far as detector.json names them."""
    found = manifest.provenance.get("licences")
    return {str(of): str(licence) for of, licence in found.items()} if isinstance(found, dict) else {}

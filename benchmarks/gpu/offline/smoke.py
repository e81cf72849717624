"""The demo detector over the example images, on the GPU and on the CPU: `python -m gpu.offline.smoke FOLDER`.

It writes smoke.json there: every logit, and how far the two are apart.
"""

import json
import sys
from pathlib import Path
from typing import Any

import json_files
import onnxruntime

from gpu.offline.pack import ROOT
from spai_runtime.detector import Detector
from spai_runtime.errors import UserError

DEVICES = ("cuda:0", "cpu")
ALLOWED = 0.01  # of a logit; both compute in fp32, and differ in the order in which they add


def main(folder: Path) -> int:
    """:returns: the exit status"""
    found = compare(sorted(path for path in (ROOT / "examples").iterdir() if path.suffix in (".png", ".jpg")))
    json_files.write(folder / "smoke.json", found)
    summary = {key: found[key] for key in ("engines", "largest_difference", "allowed")}
    print(json.dumps(json_files.rounded(summary)))  # noqa: T201
    return int(not found["largest_difference"] <= ALLOWED)


def compare(images: list[Path], devices: tuple[str, str] = DEVICES) -> dict[str, Any]:
    """:raises UserError: an engine cannot be loaded, in its own sentence"""
    logits, engines = {}, {}
    for device in devices:
        with Detector.load(device=device) as detector:
            engines[device] = detector.encoder.label
            logits[device] = [detector.score(path).logit for path in images]
    first, second = (logits[device] for device in devices)
    return {
        "onnxruntime": onnxruntime.__version__,
        "engines": engines,
        "images": [path.name for path in images],
        "logits": logits,
        "largest_difference": max(abs(a - b) for a, b in zip(first, second, strict=True)),
        "allowed": ALLOWED,
    }


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1])))
    except UserError as error:
        sys.exit(str(error))

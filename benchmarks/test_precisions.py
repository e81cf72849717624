"""How far the scores of each precision are from those of fp32, by the export's own accuracy check, on the CPU.

The golden checkpoint (random weights, tests/golden) on its images. `SPAI_BENCH_CKPT` names another checkpoint, and
`SPAI_BENCH_FOLDER` a folder of images for it: 8 bits calibrate on those that the check does not score. Without
ModelOpt, int8 (for TensorRT) and fp8 are rows that say so. bf16 is computed by torch, the others by ONNX Runtime.
"""

import os
from pathlib import Path
from typing import Any

import msgspec
from conftest import Report

from spai_export.choices import Attention, Int8For, Precision, Settings
from spai_export.directory import export
from spai_runtime.errors import UserError
from spai_runtime.files.digest import sha256_of
from spai_train.checkpoint import load_checkpoint
from tests.golden import CHECKPOINT, IMAGES

CKPT = Path(os.environ.get("SPAI_BENCH_CKPT", CHECKPOINT))
FOLDER = Path(os.environ.get("SPAI_BENCH_FOLDER", IMAGES[0].parent))


def test_precisions(benchmark: Any, report: Report, tmp_path: Path) -> None:
    lower = [precision for precision in Precision if precision is not Precision.FP32]
    rows = benchmark.pedantic(lambda: {precision.value: _row(precision, tmp_path) for precision in lower}, rounds=1)
    report(
        "precisions" if CKPT == CHECKPOINT else f"precisions-{load_checkpoint(CKPT).card.name}",
        checkpoint_sha256=sha256_of(CKPT),
        rows=rows,
    )


def _row(precision: Precision, folder: Path) -> dict[str, Any]:
    try:
        int8_for = Int8For.GPU if precision is Precision.INT8 else None
        settings = Settings((precision,), Attention.PLAIN, images=FOLDER, force=True, int8_for=int8_for)
        (artifact,) = export(CKPT, folder / precision, settings).manifest.artifacts
    except UserError as error:
        return {"missing": str(error)}
    return {**msgspec.to_builtins(artifact.accuracy), **artifact.options.get("quantised", {})}

"""All detectors over one folder: each exported by its command, and their scores fused."""

import csv
from collections.abc import Mapping
from io import StringIO
from math import prod
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from spai_export.cli import main as spai_export
from spai_train.detectors import DETECTORS
from tests.golden import CHECKPOINT, IMAGES, expected
from tests.golden.test_cospy import number as cospy_number
from tests.golden.test_towers import CLIPDET, RINE, TOWER
from tests.support.commands import spawn
from tests.support.cospy import write_folder, write_tower
from tests.train.test_corvi2023 import LOGITS as CORVI_LOGITS
from tests.train.test_corvi2023 import STATE as CORVI_STATE
from tests.train.test_dda import LOGITS as DDA_LOGITS
from tests.train.test_dda import STATE as DDA_STATE
from tests.train.test_dda import written

UNPUBLISHED = {"probe"}  # rows without a checkpoint of anybody


def checkpoints(folder: Path) -> Mapping[str, tuple[Path, ...]]:
    """A published layout of each detector at golden size, and the tower that it needs."""
    torch.manual_seed(0)
    tiny = timm.create_model("vit_tiny_patch16_224", num_classes=1, depth=2)
    save_file({f"vit.{name}": tensor for name, tensor in tiny.state_dict().items()}, folder / "model.safetensors")
    torch.save({"model": CORVI_STATE}, folder / "weights.pth")
    write_folder("progan", folder / "progan")
    write_tower("progan", folder / "progan.safetensors")
    return {
        "spai": (CHECKPOINT,),
        "rine": (RINE.checkpoint, TOWER),
        "clipdet": (CLIPDET.checkpoint, TOWER),
        "community-forensics": (folder / "model.safetensors",),
        "dda": (written(DDA_STATE, folder / "ckpt.pth"),),
        "corvi2023": (folder / "weights.pth",),
        "cospy": (folder / "progan", folder / "progan.safetensors"),
    }


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    folder = tmp_path_factory.mktemp("together")
    found = checkpoints(folder)
    assert found.keys() == DETECTORS.keys() - UNPUBLISHED
    engines = []
    for name, (checkpoint, *tower) in found.items():
        files = ["--ckpt", checkpoint, "--output", folder / name, *(["--tower", *tower] if tower else [])]
        assert spai_export(["--detector", name, *map(str, files)]) == 0
        engines += ["--engine", folder / name]
    ran = spawn(*IMAGES, *engines, "--fuse", "soft_or", "--device", "cpu", "--precision", "fp32")
    assert ran.code == 0, ran.stderr
    return list(csv.DictReader(StringIO(ran.stdout)))


def column(rows: list[dict[str, str]], ending: str) -> list[list[float]]:
    """Of each row, the numbers of all detectors."""
    names = [name for name in rows[0] if name.endswith(ending) and not name.startswith("fusion")]
    return [[float(row[name]) for name in names] for row in rows]


def test_each_says_what_it_says_alone(rows: list[dict[str, str]]) -> None:
    spai, rine, clipdet, _, dda, corvi, cospy = zip(*column(rows, "_logit"), strict=True)
    assert len(rows) == len(IMAGES) == 8
    assert spai == pytest.approx([float(expected(f"{index}/logit")[0]) for index in range(8)], abs=1e-4)
    assert rine == pytest.approx(RINE.logits, abs=1e-4)
    assert clipdet == pytest.approx(CLIPDET.logits, abs=1e-4)
    assert dda == pytest.approx(DDA_LOGITS, abs=1e-4)
    assert corvi == pytest.approx(CORVI_LOGITS, abs=1e-4)
    assert cospy == pytest.approx(cospy_number("progan", "fusion"), abs=1e-4)


def test_their_scores_are_fused(rows: list[dict[str, str]]) -> None:
    wanted = [1 - prod(1 - score for score in scores) for scores in column(rows, "_score")]
    np.testing.assert_allclose([float(row["fusion_score"]) for row in rows], wanted, atol=1e-7)
    assert [row["fusion_label"] for row in rows] == ["ai" if score > 0.5 else "real" for score in wanted]

"""What each exact saving of an exported encoder in fp32 is worth, on the engines for a CPU.

Contenders are one random model exported in several forms: with tokens brought to length one, as the paper writes it;
as SPAI's module has it (products divided by norms); that with the LayerNorms folded; with split attention; with both,
which is what spai-export writes. All must agree first.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Report
from measure import ratio, take_turns
from models import random_model
from numpy.typing import NDArray
from torch import Tensor, nn

from spai_export.choices import Precision
from spai_export.folding import fold, fold_norms, split_attention
from spai_export.onnx import export_encoder
from spai_export.precision import cast
from spai_runtime.engines import openvino
from spai_runtime.engines.base import Contract, Engine
from spai_runtime.engines.onnxruntime import OnnxEngine
from spai_runtime.engines.openvino import OpenVinoEngine
from spai_train.detectors.spai import SPEC
from spai_train.detectors.spai import model as network
from spai_train.detectors.spai.model import SPAI

MODEL = os.environ.get("SPAI_BENCH_MODEL", "medium")
BATCH = int(os.environ.get("SPAI_BENCH_BATCH", "2"))
ROUNDS = int(os.environ.get("SPAI_BENCH_GRAPH_ROUNDS", "15"))

FORMS: Mapping[str, Callable[[nn.Module], None]] = {
    "unit": lambda _: None,
    "divided": lambda _: None,
    "norms": fold_norms,
    "split": split_attention,
    "both": fold,
}
SAVINGS = {  # before, after
    "products_divided_by_norms": ("unit", "divided"),
    "norms_folded": ("divided", "norms"),
    "attention_split": ("divided", "split"),
    "all": ("unit", "both"),
}
OPEN: Mapping[str, Callable[[Path, Contract], Engine]] = {
    "onnxruntime": OnnxEngine,
    "openvino": OpenVinoEngine,
    "openvino_bf16": lambda path, contract: OpenVinoEngine(path, contract, bf16=True),
}
AGREE = {"openvino_bf16": 5e-2}  # of the largest feature; 1e-4 elsewhere


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder, model = tmp_path_factory.mktemp("graph"), _uneven(random_model(MODEL))
    return {name: _export(model, name, folder / f"{name}.onnx") for name in FORMS}


@pytest.mark.parametrize("name", OPEN)
def test_graph(benchmark: Any, report: Report, graphs: Mapping[str, Path], name: str) -> None:
    if name.startswith("openvino") and not openvino.available():
        pytest.skip("OpenVINO is not installed")
    if name == "openvino_bf16" and not openvino.has_bf16():
        pytest.skip("this processor does not multiply bf16")
    config = random_model(MODEL).config
    contract, side = Contract.encoder((config.tile_size, config.tile_size), config.features), config.tile_size
    views = np.random.default_rng(0).integers(0, 256, (BATCH, side, side, 3), dtype=np.uint8)
    engines = {form: OPEN[name](path, contract) for form, path in graphs.items()}
    _agree(engines, views, AGREE.get(name, 1e-4))
    contenders = {form: lambda engine=engine: engine.run(views) for form, engine in engines.items()}
    times = benchmark.pedantic(take_turns, args=(contenders, ROUNDS), rounds=1)
    for engine in engines.values():
        engine.close()
    report(
        f"graph-{MODEL}-{name}",
        ratios={saving: ratio(times[a].wall, times[b].wall) for saving, (a, b) in SAVINGS.items()},
        ratios_of_cpu_time={saving: ratio(times[a].cpu, times[b].cpu) for saving, (a, b) in SAVINGS.items()},
        batch_size=BATCH,
        rounds=ROUNDS,
    )


def _agree(engines: Mapping[str, Engine], views: NDArray[np.uint8], tolerance: float) -> None:
    """They have run once, then."""
    features = np.stack([engine.run(views)[0] for engine in engines.values()])
    assert np.ptp(features, axis=0).max() < tolerance * np.abs(features).max()


def _export(model: SPAI, form: str, path: Path) -> Path:
    encoder = cast(SPEC, model.encoder, Precision.FP32)
    FORMS[form](encoder)
    with pytest.MonkeyPatch.context() as patch:
        if form == "unit":
            patch.setattr(network, "_similarity_statistics", _of_unit_tokens)
        export_encoder(encoder, (model.config.tile_size, model.config.tile_size), path)
    return path


def _of_unit_tokens(projected: Tensor) -> Tensor:
    """`_similarity_statistics` of the model, with tokens brought to length one first."""
    norm = projected.square().sum(dim=-1, keepdim=True).clamp_min(1e-16).sqrt()
    original, low, high = (projected / norm).unbind(0)
    pairs = ((original, low), (original, high), (low, high))
    statistics = [network._mean_std((a * b).sum(dim=-1), dim=1) for a, b in pairs]
    return torch.stack([value for pair in statistics for value in pair], dim=1)


def _uneven(model: SPAI) -> SPAI:
    """With no scale of 1 and no bias of 0, which engines leave out by themselves."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter.data, mean=float(parameter.data.mean()), std=0.1)
    return model

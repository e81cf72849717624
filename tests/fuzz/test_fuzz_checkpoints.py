"""Mutated checkpoints: a model, or one UserError of one line, and nothing is run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from safetensors import safe_open
from safetensors.torch import save

from spai_train.checkpoint import Card, load_checkpoint, save_checkpoint, save_upstream
from spai_train.detectors.spai.model import SPAI
from tests.fuzz.attempts import one_line_at_most
from tests.fuzz.mutation import Change, Edit, as_json, changed, changes, edits, limits, mutated


@pytest.fixture(params=["a.safetensors", "a.pth"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path, tiny_model: SPAI) -> Path:
    path = tmp_path / str(request.param)
    if path.suffix == ".pth":
        save_upstream(path, tiny_model)
    else:
        save_checkpoint(path, tiny_model, Card())
    return path


def attempt(path: Path) -> None:
    with one_line_at_most():
        load_checkpoint(path).model()


@pytest.mark.filterwarnings("ignore")  # what torch says of odd files
def test_mutated_bytes(checkpoint: Path) -> None:
    whole = checkpoint.read_bytes()
    attempt(checkpoint)

    @limits(examples=100)
    @given(made=edits())
    def fuzz(made: list[Edit]) -> None:
        checkpoint.write_bytes(mutated(whole, made))
        attempt(checkpoint)

    fuzz()


@pytest.mark.filterwarnings("ignore")
def test_mutated_settings_of_upstreams(tmp_path: Path, tiny_model: SPAI) -> None:
    path = tmp_path / "a.pth"
    save_upstream(path, tiny_model)
    whole: dict[str, Any] = torch.load(path, weights_only=True)

    @limits(examples=150)
    @given(made=changes())
    def fuzz(made: list[Change]) -> None:
        torch.save({**whole, "config": changed(whole["config"], made)}, path)
        attempt(path)

    fuzz()


def test_mutated_header_of_ours(tmp_path: Path, tiny_model: SPAI, tiny_checkpoint: Path) -> None:
    with safe_open(tiny_checkpoint, framework="pt") as file:
        header = json.loads(file.metadata()["spai"])
    state, path = tiny_model.state_dict(), tmp_path / "a.safetensors"

    @limits(examples=150)
    @given(made=changes())
    def fuzz(made: list[Change]) -> None:
        path.write_bytes(save(state, {"spai": as_json(changed(header, made))}))
        attempt(path)

    fuzz()

"""Mutated checkpoints: a model, or one UserError of one line, and nothing is run."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from safetensors import safe_open
from safetensors.torch import load_file, save

from spai_train.checkpoint import Card, load_checkpoint, save_checkpoint, save_upstream
from spai_train.detectors.probe import Probe, ProbeConfig
from spai_train.detectors.spai.model import SPAI
from tests.fuzz.attempts import one_line_at_most
from tests.fuzz.mutation import Change, Edit, as_json, changed, changes, edits, limits, mutated
from tests.golden import FOLDER
from tests.train.test_towers import torchscript

TOWER = FOLDER / "clip_small.safetensors"
WITH_TOWER = FOLDER / "rine" / "rine_small_trainable.pth", FOLDER / "clipdet" / "clipdet_small.pth"


@pytest.fixture(params=["a.safetensors", "a.pth"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path, tiny_model: SPAI) -> Path:
    path = tmp_path / str(request.param)
    if path.suffix == ".pth":
        save_upstream(path, tiny_model)
    else:
        save_checkpoint(path, tiny_model, Card())
    return path


def attempt(path: Path, tower: Path | None = None) -> None:
    with one_line_at_most():
        load_checkpoint(path, tower=tower).model()


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
    mutate_header(tiny_checkpoint, tiny_model, tmp_path / "a.safetensors")


def test_mutated_header_of_a_probe(tmp_path: Path) -> None:
    """Which names the network that is built."""
    model = Probe(ProbeConfig.of("test_resnet"))
    save_checkpoint(tmp_path / "good.safetensors", model, Card())
    mutate_header(tmp_path / "good.safetensors", model, tmp_path / "a.safetensors")


def mutate_header(good: Path, model: torch.nn.Module, path: Path) -> None:
    """:param good: the model's checkpoint
    :param path: of the others, one after the other
    """
    with safe_open(good, framework="pt") as file:
        header = json.loads(file.metadata()["spai"])
    state = model.state_dict()

    @limits(examples=150)
    @given(made=changes())
    def fuzz(made: list[Change]) -> None:
        path.write_bytes(save(state, {"spai": as_json(changed(header, made))}))
        attempt(path)

    fuzz()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("published", WITH_TOWER, ids=["rine", "clipdet"])
def test_mutated_bytes_of_what_needs_a_tower(published: Path, tmp_path: Path) -> None:
    whole, path = published.read_bytes(), tmp_path / "a.pth"
    assert load_checkpoint(published, tower=TOWER).tower

    @limits(examples=60)
    @given(made=edits())
    def fuzz(made: list[Edit]) -> None:
        path.write_bytes(mutated(whole, made))
        attempt(path, TOWER)

    fuzz()


@pytest.mark.filterwarnings("ignore")
def test_mutated_pickle_of_torchscript(tmp_path: Path) -> None:
    """The weights of CLIP as OpenAI publishes them, of whose pickle no name may be fetched."""
    good = torchscript(tmp_path / "good.pt", load_file(TOWER))
    with zipfile.ZipFile(good) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = (name for name in parts if name.endswith("/data.pkl"))
    path = tmp_path / "a.pt"

    @limits(examples=300)
    @given(made=edits())
    def fuzz(made: list[Edit]) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, mutated(content, made) if name == pickled else content)
        attempt(WITH_TOWER[0], path)

    fuzz()

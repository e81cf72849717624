"""A state.pt that no run can go on from is one sentence, whatever is wrong with it."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spai_runtime.errors import RefusedError
from spai_train.pretrain import pretrain
from spai_train.tensors import CheckpointError
from tests.support.training import pretrain_recipe, write_labelled


class Harm:
    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return print, ("executed",)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def state(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a finished run."""
    path = tmp_path_factory.mktemp("run")
    pretrain(pretrain_recipe(table, schedule__epochs=1), path)
    return path / "state.pt"


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.pop(name)


def other_shapes(content: dict[str, Any]) -> None:
    content["model"] = {name: torch.zeros(1) for name in content["model"]}


def other_history(content: dict[str, Any]) -> None:
    content["state"]["history"] = 3


DAMAGE: dict[str, Callable[[dict[str, Any]], None]] = {
    "no state": without("state"),
    "no model": without("model"),
    "no optimizer": without("optimizer"),
    "other shapes": other_shapes,
    "a field less": lambda content: content["state"].pop("step"),
    "a field more": lambda content: content["state"].update(more=1),
    "no history": other_history,
    "state is a list": lambda content: content.update(state=[1]),
    "optimizer is text": lambda content: content.update(optimizer="adamw"),
    "totals are text": lambda content: content["state"].update(totals="none"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_state_with_other_content(table: Path, state: Path, tmp_path: Path, damage: str) -> None:
    run = copied(state, tmp_path)
    content = torch.load(run / "state.pt", weights_only=True)
    DAMAGE[damage](content)
    torch.save(content, run / "state.pt")
    with pytest.raises(CheckpointError, match=r"state\.pt is damaged: delete it to begin anew"):
        pretrain(pretrain_recipe(table, schedule__epochs=1), run, resume=True)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\3\4" + bytes(60)], ids=["empty", "text", "archive"])
def test_a_state_that_is_none(table: Path, state: Path, tmp_path: Path, content: bytes) -> None:
    run = copied(state, tmp_path)
    (run / "state.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"state\.pt (is not a checkpoint|was refused)"):
        pretrain(pretrain_recipe(table, schedule__epochs=1), run, resume=True)


def test_a_state_that_asks_for_code_is_refused(
    table: Path, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(state, tmp_path)
    (run / "state.pt").write_bytes(pickle.dumps(Harm()))
    with pytest.raises(RefusedError, match="which could run code"):
        pretrain(pretrain_recipe(table, schedule__epochs=1), run, resume=True)
    assert "executed" not in capsys.readouterr().out


def copied(state: Path, folder: Path) -> Path:
    for path in state.parent.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder

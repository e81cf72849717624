"""Sums of an epoch, and what a resumed epoch goes on from."""

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from spai_train.data.dataset import Failure
from spai_train.training.launch import launch
from spai_train.training.meters import Meters, gather
from spai_train.training.settings import TrainingSettings

LOSSES = [0.7, 0.1, 0.4]


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return launch(TrainingSettings(device="cpu", trackers=()), Path("nowhere"), all_train=True)


def add(meters: Meters, losses: list[float]) -> None:
    """A step each, of two micro-batches."""
    for loss in losses:
        for micro in (0.75, 0.25):
            meters.add(loss=torch.tensor(micro * loss, requires_grad=True), norm=torch.tensor(2.0))
        meters.steps += 1


def test_means_are_over_the_steps(accelerator: Accelerator) -> None:
    meters = Meters(accelerator)
    assert meters.means() == {}
    add(meters, LOSSES)
    assert meters.means() == pytest.approx({"loss": 0.4, "norm": 4.0}, rel=1e-7)


def test_sums_are_of_double_precision(accelerator: Accelerator) -> None:
    """2²⁴ + 1 is no float32."""
    meters = Meters(accelerator)
    meters.add(loss=torch.tensor(2.0**24))
    meters.add(loss=torch.tensor(1.0))
    meters.steps = 1
    assert meters.means() == {"loss": 2**24 + 1}


def test_a_restored_epoch_goes_on_to_the_same_bit(accelerator: Accelerator) -> None:
    whole, first, second = (Meters(accelerator) for _ in range(3))
    for meters, losses in ((whole, LOSSES), (first, LOSSES[:1])):
        meters.failed([Failure("a.png", "empty")])
        add(meters, losses)
    second.restore(json.loads(json.dumps(first.state())))
    add(second, LOSSES[1:])
    second.failed([Failure("b.png", "truncated")])
    assert second.means() == whole.means()
    assert second.all_unreadable() == {"a.png": "empty", "b.png": "truncated"}


def test_an_epoch_that_has_not_begun_is_restored_too(accelerator: Accelerator) -> None:
    meters = Meters(accelerator)
    meters.restore(Meters(accelerator).state())
    assert (meters.steps, meters.means(), meters.unreadable) == (0, {}, {})


def test_one_process_gathers_what_it_holds(accelerator: Accelerator) -> None:
    assert gather(accelerator, ["x"]) == [["x"]]

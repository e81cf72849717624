"""Which image is in which step: a function of the seed, whatever the processes, micro-batches and restarts."""

import numpy as np
import pytest

from spai_train.data.order import Order, Plan, PlanError, Ticket, permutation


def batches(order: Order) -> list[list[Ticket]]:
    found = list(order)
    assert len(found) == len(order)
    return found


def test_an_epoch_shows_each_image_once_and_drops_what_is_left_over() -> None:
    plan = Plan(images=11, batch_size=4, epochs=3)
    tickets = [ticket for batch in batches(Order(plan, seed=5)) for ticket in batch]
    assert (plan.steps_per_epoch, plan.steps, plan.micro_batch) == (2, 6, 4)
    for epoch in range(3):
        seen = [ticket.image for ticket in tickets if ticket.epoch == epoch]
        assert len(seen) == len(set(seen)) == 8
        assert seen == permutation(11, 5, epoch)[:8].tolist()


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [permutation(100, seed, epoch).tolist() for seed in range(3) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 9
    assert all(sorted(order) == list(range(100)) for order in orders)


@pytest.mark.parametrize("start", [0, 1, 2, 3, 5])
def test_a_later_start_gives_the_rest(start: int) -> None:
    plan = Plan(images=9, batch_size=4, epochs=3, accumulate=2)
    assert batches(Order(plan, 0, start)) == batches(Order(plan, 0))[2 * start :]


def test_processes_and_micro_batches_share_the_batch_of_one_process() -> None:
    whole = batches(Order(Plan(images=30, batch_size=12, epochs=2), 7))
    shared = Plan(images=30, batch_size=12, epochs=2, accumulate=2, processes=3)
    parts = [batches(Order(shared, 7, process=process)) for process in range(3)]
    assert {len(micro) for part in parts for micro in part} == {2}
    for step, batch in enumerate(whole):
        of_step = [ticket for micro in range(2) for part in parts for ticket in part[2 * step + micro]]
        assert of_step == batch


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"images": 100, "batch_size": 9, "epochs": 1, "accumulate": 2}, "make it a multiple of 2"),
        ({"images": 100, "batch_size": 9, "epochs": 1, "processes": 4}, "make it a multiple of 4"),
        ({"images": 8, "batch_size": 9, "epochs": 1}, "batch_size 9 is more than the 8 training images"),
        ({"images": 8, "batch_size": 4, "epochs": 0}, "schedule.epochs is 0; it is at least 1"),
    ],
)
def test_sizes_that_do_not_fit_are_said(options: dict[str, int], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        Plan(**options)


def test_the_order_is_that_of_every_version() -> None:
    """A resumed run must find the order it began with, in whatever version of numpy."""
    assert permutation(8, 0, 0).tolist() == FIRST
    assert np.bincount(permutation(1000, 1, 2)).tolist() == [1] * 1000


FIRST = [5, 3, 0, 7, 4, 2, 6, 1]

"""Bytes granted in order, and a consumer who is told what it waits for."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from spai_runtime.scoring.budget import Budget

PATIENCE = 30  # seconds


def started(action: Callable[[], Any]) -> "Future[Any]":
    """Its result, from a thread of its own."""
    future = Future[Any]()
    threading.Thread(target=lambda: future.set_result(action()), daemon=True).start()
    return future


def test_in_the_order_of_the_tickets() -> None:
    budget, granted = Budget(10), list[int]()
    waiting = [started(lambda ticket=ticket: (budget.take(ticket, 6), granted.append(ticket))) for ticket in (2, 1, 0)]
    for ticket in range(3):
        waiting[2 - ticket].result(PATIENCE)
        assert granted == list(range(ticket + 1))
        assert [budget.granted(other) for other in range(4)] == [other <= ticket for other in range(4)]
        budget.give(6)


def test_one_that_is_larger_than_all_goes_alone() -> None:
    budget = Budget(10)
    budget.take(0, 1)
    large = started(lambda: budget.take(1, 100))
    assert budget.starves(large)
    assert not large.done()
    budget.give(1)
    large.result(PATIENCE)
    assert budget.starves(started(lambda: budget.take(2, 1)))


def ends_with(image: Future[None], waiting: Future[bool]) -> None:
    """Whoever waits does so until the image is read, and learns that it was."""
    with pytest.raises(TimeoutError):
        waiting.result(0.1)
    image.set_result(None)
    assert waiting.result(PATIENCE) is False


def test_whoever_waits_for_an_image_is_told_when_it_is_read() -> None:
    budget, image = Budget(10), Future[None]()
    budget.watch(image)
    waiting = started(lambda: budget.starves(image))
    ends_with(image, waiting)


def test_whoever_waits_for_an_image_is_told_that_another_finds_no_room() -> None:
    budget, image = Budget(10), Future[None]()
    budget.watch(image)
    budget.take(0, 6)
    waiting = started(lambda: budget.starves(image))
    with pytest.raises(TimeoutError):
        waiting.result(0.1)
    other = started(lambda: budget.take(1, 6))
    assert waiting.result(PATIENCE) is True
    budget.give(6)
    other.result(PATIENCE)
    waiting = started(lambda: budget.starves(image))
    ends_with(image, waiting)


def test_a_run_that_ends_early_lets_all_go() -> None:
    budget = Budget(10)
    budget.take(0, 10)
    waiting = [started(lambda ticket=ticket: budget.take(ticket, 10)) for ticket in (1, 2, 3)]
    budget.close()
    for future in waiting:
        future.result(PATIENCE)

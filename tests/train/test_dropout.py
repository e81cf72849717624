"""Dropout keeps what it should, as often as it should, and scales it."""

import pytest
import torch

from spai_train.models.dropout import Dropout, keep_mask


@pytest.mark.parametrize("p", [0.5, 0.25, 3 / 256, 0.3])
def test_elements_are_kept_and_scaled(p: float) -> None:
    torch.manual_seed(0)
    x = torch.rand(97, 1001) + 0.5
    y = Dropout(p)(x)
    kept = y != 0
    torch.testing.assert_close(y[kept], x[kept] / (1 - p))
    deviation = (p * (1 - p) / x.numel()) ** 0.5
    assert kept.float().mean().item() == pytest.approx(1 - p, abs=5 * deviation)


def test_bits_are_independent_of_their_neighbours() -> None:
    """Correlation of the mask with itself, moved by up to two words."""
    torch.manual_seed(1)
    kept = keep_mask(torch.Size((400_000,)), 0.5).double() - 0.5
    for shift in range(1, 17):
        correlation = (kept[shift:] * kept[:-shift]).mean().item() / 0.25
        assert abs(correlation) < 5 / 400_000**0.5, shift


def test_draws_follow_from_torchs_seed_and_differ() -> None:
    x = torch.ones(1000)
    torch.manual_seed(2)
    first, second = Dropout(0.5)(x), Dropout(0.5)(x)
    torch.manual_seed(2)
    torch.testing.assert_close(Dropout(0.5)(x), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_eval_and_no_dropout_are_the_identity(p: float) -> None:
    x = torch.rand(5)
    assert torch.equal(Dropout(p).eval()(x), x)
    if p == 0:
        assert torch.equal(Dropout(p)(x), x)


def test_gradients_pass_where_elements_do() -> None:
    x = torch.rand(64, requires_grad=True)
    y = Dropout(0.5)(x)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, (y != 0).float() * 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_type_stays(dtype: torch.dtype) -> None:
    assert Dropout(0.5)(torch.ones(9, dtype=dtype)).dtype == dtype

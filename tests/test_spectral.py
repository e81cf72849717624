"""The truncated DFT against torch.fft and against upstream's golden numbers."""

import numpy as np
import pytest
import torch
from golden import expected, golden_views

from spai_train.spectral import SpectralFilter, disc_mask, real_response


def low_by_fft(tiles: torch.Tensor, radius: float) -> torch.Tensor:
    """The paper's definition: mask the centred spectrum, transform back, take the real part."""
    spectrum = torch.fft.fftshift(torch.fft.fft2(tiles.double()), dim=(-2, -1))
    masked = spectrum * torch.from_numpy(disc_mask(tiles.shape[-1], radius))
    return torch.fft.ifft2(torch.fft.ifftshift(masked, dim=(-2, -1))).real


def test_mask_centre_lies_between_samples() -> None:
    mask = disc_mask(8, 2)
    assert mask[4].tolist() == [0, 0, 1, 1, 1, 1, 0, 0]  # coordinates 3 2 1 0 0 1 2 3
    assert mask[2].tolist() == [0, 0, 1, 1, 1, 1, 0, 0]  # 1² + 1² < 2²
    assert mask.sum() == 16


def test_published_response_has_17_rows_and_33_columns() -> None:
    kept = real_response(224, 16)[:113]
    assert np.count_nonzero(kept.any(axis=1)) == 17
    assert np.count_nonzero(kept.any(axis=0)) == 33
    assert set(np.unique(kept)) == {0.0, 0.5, 1.0}


@pytest.mark.parametrize("size", [2, 8, 30, 224])
@pytest.mark.parametrize("radius", [0, 0.5, 1, 3, 7.5, 16, 113, 1000])
def test_filter_is_the_masked_fft(size: int, radius: float) -> None:
    tiles = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(size))
    low = SpectralFilter(size, radius)(tiles)
    assert low.shape == tiles.shape
    torch.testing.assert_close(low.double(), low_by_fft(tiles, radius), atol=5e-6, rtol=0)


def test_filter_agrees_with_upstream() -> None:
    tile = torch.from_numpy(golden_views(0)[:1]).float().div(255).permute(0, 3, 1, 2)
    low = SpectralFilter(224, 16)(tile)
    np.testing.assert_allclose(low[0], expected("0/low_unclamped"), atol=5e-6, rtol=0)
    np.testing.assert_allclose((tile - low)[0], expected("0/high_unclamped"), atol=5e-6, rtol=0)


def test_filter_is_differentiable() -> None:
    tiles = torch.rand(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(SpectralFilter(4, 1.5).double(), tiles)


def test_filter_keeps_nothing_in_a_checkpoint() -> None:
    assert not SpectralFilter(224, 16).state_dict()


def test_odd_tiles_are_refused() -> None:
    with pytest.raises(AssertionError, match="even"):
        SpectralFilter(223, 16)

"""The truncated DFT against torch.fft and against upstream's golden numbers."""

import numpy as np
import pytest
import torch

from spai_train.detectors.spai.spectral import Mask, SpectralFilter, centred_mask, disc_mask, real_response
from tests.golden import expected, golden_views


def low_by_fft(tiles: torch.Tensor, radius: float, mask_of: Mask = disc_mask) -> torch.Tensor:
    """The paper's definition: mask the centred spectrum, transform back, take the real part."""
    spectrum = torch.fft.fftshift(torch.fft.fft2(tiles.double()), dim=(-2, -1))
    masked = spectrum * torch.from_numpy(mask_of(tiles.shape[-1], radius))
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


def test_mask_of_pretraining_is_centred_on_dc() -> None:
    by_definition = [[(x - 4) ** 2 + (y - 4) ** 2 < 3**2 for x in range(8)] for y in range(8)]
    assert centred_mask(8, 3).tolist() == by_definition
    in_fft_order = np.fft.ifftshift(centred_mask(8, 3))
    assert np.array_equal(real_response(8, 3, centred_mask), in_fft_order)  # symmetric: nothing is averaged


@pytest.mark.parametrize("mask_of", [disc_mask, centred_mask])
@pytest.mark.parametrize("size", [2, 8, 30, 224])
@pytest.mark.parametrize("radius", [0, 0.5, 1, 3, 7.5, 16, 113, 1000])
def test_filter_is_the_masked_fft(size: int, radius: float, mask_of: Mask) -> None:
    tiles = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(size))
    low = SpectralFilter(size, radius, mask_of)(tiles)
    assert low.shape == tiles.shape
    torch.testing.assert_close(low.double(), low_by_fft(tiles, radius, mask_of), atol=5e-6, rtol=0)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_autocast_does_not_reach_the_filter(precision: torch.dtype) -> None:
    tiles = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", precision):
        low = SpectralFilter(224, 16)(tiles)
        assert (tiles[0, 0] @ tiles[0, 0]).dtype == precision  # it is on again behind it
    assert low.dtype == torch.float32
    torch.testing.assert_close(
        low.double(), low_by_fft(tiles, 16), atol=5e-6, rtol=0
    )  # rounding to half costs 100 times that


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

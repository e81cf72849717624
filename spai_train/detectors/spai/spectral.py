"""The spectral filter: a disc-shaped low-pass, as four thin matrix products.

SPAI masks the frequencies of a tile with a disc (paper, section 3.1; upstream `filters.py`) and takes the real
part after the inverse FFT. A disc of radius 16 leaves 17 × 33 of the 224 × 224 coefficients of a real tile, so the
transform is a truncated DFT: exact, differentiable, cheaper than fft2/ifft2, and plain MatMul in an exported graph.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Mask = Callable[[int, float], NDArray[np.float64]]


def disc_mask(size: int, radius: float) -> NDArray[np.float64]:
    """The mask that upstream multiplies with the centred spectrum: 1 where a frequency is low, else 0.

    Coordinates run (size/2 − 1) … 1, 0, 0, 1 … (size/2 − 1) along an axis, so the disc's centre lies between two
    samples and the mask is not symmetric about DC.

    :param size: side of a tile in pixels, even
    :param radius: in DFT samples; a frequency is low where its distance from the centre is less
    :returns: (size, size), DC at [size/2, size/2]
    """
    assert size % 2 == 0, "the mask is defined for even tile sizes"
    axis = np.abs(np.arange(size) - (size - 1) / 2) - 0.5
    mask: NDArray[np.float64] = (np.hypot(axis[:, None], axis[None, :]) < radius).astype(np.float64)
    return mask


def centred_mask(size: int, radius: float) -> NDArray[np.float64]:
    """The mask of masked frequency modelling (upstream `data_mfm.py`), a disc about DC and so symmetric about it.

    :returns: as `disc_mask`
    """
    assert size % 2 == 0, "the mask is defined for even tile sizes"
    axis = np.arange(size) - size // 2
    mask: NDArray[np.float64] = (np.hypot(axis[:, None], axis[None, :]) < radius).astype(np.float64)
    return mask


def real_response(size: int, radius: float, mask_of: Mask = disc_mask) -> NDArray[np.float64]:
    """The filter that acts on a real tile: M' = (M(k) + M(−k)) / 2, since Re(ifft) averages the two.

    :returns: (size, size) in fft order, DC at [0, 0]
    """
    mask = np.fft.ifftshift(mask_of(size, radius))
    mirrored = np.roll(mask[::-1, ::-1], shift=(1, 1), axis=(0, 1))
    return (mask + mirrored) / 2


class SpectralFilter(nn.Module):
    """Low-pass of real tiles: low = Re(Eᴴ (M' ∘ (E x Eᵀ)) E̅), E the rows of the DFT matrix where M' is not zero.

    Complex numbers are pairs of reals. The row transform interleaves real and imaginary rows; reading its (2R, S)
    result as (R, 2S) puts them side by side, so that each of the four products is one real MatMul, and the two in the
    middle are one large one over all tiles. Rows go first: a real tile's spectrum is Hermitian, so the half with
    ky ≥ 0 is enough. Autocast does not reach it: with half-precision factors the high-pass is mostly rounding.

    :param size: side S of a tile, even
    :param radius: the mask's radius in DFT samples; any value, from pass-nothing to pass-all
    :param mask_of: size and radius → M, `disc_mask` or `centred_mask`
    """

    rows: Tensor
    columns: Tensor
    response: Tensor
    inverse_columns: Tensor
    inverse_rows: Tensor

    def __init__(self, size: int, radius: float, mask_of: Mask = disc_mask) -> None:
        super().__init__()
        half = real_response(size, radius, mask_of)[: size // 2 + 1]  # ky ≥ 0; the others are conjugates
        used = half != 0
        used[0, 0] = True  # DC stays, if only to be multiplied by 0: a product needs a row
        kept_rows, kept_columns = (np.flatnonzero(used.any(axis=axis)) for axis in (1, 0))  # (R,), (C,)
        pixels = np.arange(size)
        row_phase = 2 * np.pi / size * np.outer(kept_rows, pixels)  # (R, S)
        phase = 2 * np.pi / size * np.outer(pixels, kept_columns)  # (S, C)
        rows = np.stack((np.cos(row_phase), -np.sin(row_phase)), axis=1).reshape(-1, size)  # (2R, S)
        columns = np.block([[np.cos(phase), -np.sin(phase)], [np.sin(phase), np.cos(phase)]])  # (2S, 2C)
        halves = np.where((kept_rows == 0) | (kept_rows == size // 2), 1, 2)[:, None]  # both of a conjugate pair
        response = half[np.ix_(kept_rows, kept_columns)] * halves / size**2  # (R, C)
        constants = {
            "rows": rows,
            "columns": columns,
            "response": np.hstack((response, response)),  # (R, 2C): of real and imaginary parts
            "inverse_columns": columns.T,  # adjoints of E
            "inverse_rows": rows.T,
        }
        for name, value in constants.items():
            self.register_buffer(name, torch.from_numpy(value).float().contiguous(), persistent=False)
        self.size = size

    def forward(self, tiles: Tensor) -> Tensor:
        """:param tiles: (N, 3, S, S) float32
        :returns: their low-pass, (N, 3, S, S), not clamped; the high-pass is `tiles - low`
        """
        size, kept = self.size, self.response.shape[0]
        with full_precision(tiles.device):
            spectrum = (self.rows @ tiles).reshape(-1, 3, kept, 2 * size)  # (N, 3, R, 2S)
            spectrum = (spectrum @ self.columns) * self.response  # (N, 3, R, 2C)
            low = (spectrum @ self.inverse_columns).reshape(-1, 3, 2 * kept, size)  # (N, 3, 2R, S)
            return self.inverse_rows @ low


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Suspends autocast where it is on; where it is off, it does nothing, so that no exported graph shows it."""
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()

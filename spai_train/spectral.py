"""The spectral filter: a disc-shaped low-pass, as four thin matrix products.

SPAI masks the frequencies of a tile with a disc (paper, section 3.1; upstream `filters.py`) and takes the real
part after the inverse FFT. A disc of radius 16 leaves 33 × 17 of the 224 × 224 coefficients of a real tile, so the
transform is a truncated DFT: exact, differentiable, cheaper than fft2/ifft2, and plain MatMul in an exported graph.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


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
    return (np.hypot(axis[:, None], axis[None, :]) < radius).astype(np.float64)


def real_response(size: int, radius: float) -> NDArray[np.float64]:
    """The filter that acts on a real tile: M' = (M(k) + M(−k)) / 2, since Re(ifft) averages the two.

    :returns: (size, size) in fft order, DC at [0, 0]
    """
    mask = np.fft.ifftshift(disc_mask(size, radius))
    mirrored = np.roll(mask[::-1, ::-1], shift=(1, 1), axis=(0, 1))
    return (mask + mirrored) / 2


class SpectralFilter(nn.Module):
    """Low-pass of real tiles: low = Re(Eᴴ (M' ∘ (E x Eᵀ)) E̅), E the rows of the DFT matrix where M' is not zero.

    Complex numbers are pairs of reals: the column transform puts real and imaginary parts side by side, and reading
    its (S, 2C) result as (2S, C) interleaves them into rows, so that each of the four products is one real MatMul.
    Keep it in fp32: with half-precision factors the high-pass is mostly rounding.

    :param size: side S of a tile, even
    :param radius: of the mask, in DFT samples; any value, from pass-nothing to pass-all
    """

    columns: Tensor
    rows: Tensor
    response: Tensor
    inverse_rows: Tensor
    inverse_columns: Tensor

    def __init__(self, size: int, radius: float) -> None:
        super().__init__()
        response = real_response(size, radius)
        half = response[:, : size // 2 + 1]  # a real tile's other columns are conjugates
        used = half != 0
        used[0, 0] = True  # DC stays, if only to be multiplied by 0: a product needs a row
        kept_rows, kept_columns = (np.flatnonzero(used.any(axis=axis)) for axis in (1, 0))  # (R,), (C,)
        pixels = np.arange(size)
        column_phase = 2 * np.pi / size * np.outer(pixels, kept_columns)  # (S, C)
        row_phase = 2 * np.pi / size * np.outer(kept_rows, pixels)  # (R, S)
        rows = _interleave(np.cos(row_phase), -np.sin(row_phase))  # (2R, 2S)
        conjugates = np.where((kept_columns == 0) | (kept_columns == size // 2), 1.0, 2.0)
        kept = half[np.ix_(kept_rows, kept_columns)] * conjugates / size**2  # (R, C)
        constants = {
            "columns": np.hstack((np.cos(column_phase), -np.sin(column_phase))),  # (S, 2C)
            "rows": rows,
            "response": np.repeat(kept, 2, axis=0),  # (2R, C)
            "inverse_rows": rows.T,  # (2S, 2R): the adjoint of E
            "inverse_columns": np.vstack((np.cos(column_phase).T, -np.sin(column_phase).T)),  # (2C, S)
        }
        for name, value in constants.items():
            self.register_buffer(name, torch.from_numpy(value).float().contiguous(), persistent=False)
        self.size = size

    def forward(self, tiles: Tensor) -> Tensor:
        """:param tiles: (N, 3, S, S) float32
        :returns: their low-pass, (N, 3, S, S), not clamped; the high-pass is `tiles - low`
        """
        size, kept = self.size, self.response.shape[1]
        spectrum = (tiles @ self.columns).reshape(-1, 3, 2 * size, kept)  # (N, 3, 2S, C)
        spectrum = (self.rows @ spectrum) * self.response  # (N, 3, 2R, C)
        low = (self.inverse_rows @ spectrum).reshape(-1, 3, size, 2 * kept)  # (N, 3, S, 2C)
        return low @ self.inverse_columns


def _interleave(real: NDArray[np.float64], imaginary: NDArray[np.float64]) -> NDArray[np.float64]:
    """The real matrix (2R, 2S) that multiplies vectors of (re, im) pairs like the complex matrix (R, S)."""
    pairs = np.array([[real, -imaginary], [imaginary, real]])  # (2, 2, R, S)
    return pairs.transpose(2, 0, 3, 1).reshape(2 * real.shape[0], 2 * real.shape[1])

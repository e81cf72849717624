"""The spectral filter: truncated DFT against upstream's fft2 and ifft2, both giving low-pass and high-pass of 16 tiles.

Upstream transforms the tiles once, shifts every axis, and transforms back twice, through the disc mask and through its
inverse. Beside that: the low-pass alone, what an FFT that knows its input to be real makes of it, and processor time
on one thread, which does not depend on what else the machine does.
"""

import os
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from conftest import Report
from measure import Times, ratio, take_turns
from torch import Tensor

from spai_train.spectral import SpectralFilter, disc_mask, real_response

TILES, SIZE, RADIUS, TARGET = 16, 224, 16, 10
ROUNDS = int(os.environ.get("SPAI_BENCH_FILTER_ROUNDS", "50"))


def upstream(tiles: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Low-pass and high-pass (N, 3, S, S) as upstream's `filter_image_frequencies` defines them."""
    spectrum = torch.fft.fftshift(torch.fft.fft2(tiles))
    low, high = (torch.fft.ifft2(torch.fft.ifftshift(spectrum * part)).real for part in (mask, 1 - mask))
    return low, high


def test_filter(benchmark: Any, report: Report) -> None:
    torch.manual_seed(0)
    tiles, spectral = torch.rand(TILES, 3, SIZE, SIZE), SpectralFilter(SIZE, RADIUS).eval()
    mask = torch.from_numpy(disc_mask(SIZE, RADIUS)).float()
    response = torch.from_numpy(real_response(SIZE, RADIUS)[:, : SIZE // 2 + 1]).float()

    def truncated() -> tuple[Tensor, Tensor]:
        low = spectral(tiles)
        return low, tiles - low

    contenders = {
        "truncated": truncated,
        "fft": lambda: upstream(tiles, mask),
        "truncated_low": lambda: spectral(tiles),
        "rfft_low": lambda: torch.fft.irfft2(torch.fft.rfft2(tiles) * response, s=(SIZE, SIZE)),
    }
    with torch.inference_mode():
        difference = max(float((a - b).abs().max()) for a, b in zip(truncated(), contenders["fft"](), strict=True))
        assert difference < 5e-6
        times = benchmark.pedantic(take_turns, args=(contenders, ROUNDS), rounds=1)
        alone = _on_one_thread(contenders)
    wall = {name: values.wall for name, values in times.items()}
    report(
        "filter",
        **{f"{name}_ms": 1e3 * median(seconds) for name, seconds in wall.items()},
        ratio=ratio(wall["fft"], wall["truncated"]),
        target=TARGET,
        ratio_low_rfft=ratio(wall["rfft_low"], wall["truncated_low"]),
        one_thread_cpu_ms={name: 1e3 * median(values.cpu) for name, values in alone.items()},
        one_thread_cpu_ratio=ratio(alone["fft"].cpu, alone["truncated"].cpu),
        largest_difference=difference,
        tiles=TILES,
        rounds=ROUNDS,
    )


def _on_one_thread(contenders: dict[str, Callable[[], object]]) -> dict[str, Times]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return take_turns(contenders, ROUNDS)
    finally:
        torch.set_num_threads(threads)

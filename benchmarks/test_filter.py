"""The spectral filter: low-pass and high-pass of 16 tiles by truncated DFT, against upstream's fft2 and ifft2.

Upstream transforms the tiles once, shifts every axis, and transforms back twice, through the disc mask and through its
inverse. Beside that: the low-pass alone, what an FFT that knows its input to be real makes of it, and processor time
on one thread. The results are 10 MB each; whether they are fresh pages or kept ones moves every figure by up to two.
"""

import os
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from conftest import Report
from measure import Times, ratio, take_turns
from torch import Tensor

from spai_train.detectors.spai.spectral import SpectralFilter, disc_mask, real_response

TILES, SIZE, RADIUS, TARGET = 16, 224, 16, 10
ROUNDS = int(os.environ.get("SPAI_BENCH_FILTER_ROUNDS", "50"))


def by_fft(tiles: Tensor, *masks: Tensor) -> list[Tensor]:
    """What each mask lets through, (N, 3, S, S), as upstream's `filter_image_frequencies` defines it."""
    spectrum = torch.fft.fftshift(torch.fft.fft2(tiles))
    return [torch.fft.ifft2(torch.fft.ifftshift(spectrum * mask)).real for mask in masks]


def test_filter(benchmark: Any, report: Report) -> None:
    torch.manual_seed(0)
    tiles, spectral = torch.rand(TILES, 3, SIZE, SIZE), SpectralFilter(SIZE, RADIUS).eval()
    mask = torch.from_numpy(disc_mask(SIZE, RADIUS)).float()
    response = torch.from_numpy(real_response(SIZE, RADIUS)[:, : SIZE // 2 + 1]).float()

    def both() -> tuple[Tensor, Tensor]:
        low = spectral(tiles)
        return low, tiles - low

    contenders: dict[str, Callable[[], object]] = {
        "truncated": both,
        "fft": lambda: by_fft(tiles, mask, 1 - mask),
        "truncated_low": lambda: spectral(tiles),
        "fft_low": lambda: by_fft(tiles, mask),
        "rfft_low": lambda: torch.fft.irfft2(torch.fft.rfft2(tiles) * response, s=(SIZE, SIZE)),
    }
    with torch.inference_mode():
        found = zip(both(), by_fft(tiles, mask, 1 - mask), strict=True)
        difference = max(float((a - b).abs().max()) for a, b in found)
        assert difference < 5e-6
        times = benchmark.pedantic(take_turns, args=(contenders, ROUNDS), rounds=1)
        alone = _on_one_thread(contenders)
    wall = {name: values.wall for name, values in times.items()}
    report(
        "filter",
        **{f"{name}_ms": 1e3 * median(seconds) for name, seconds in wall.items()},
        ratio=ratio(wall["fft"], wall["truncated"]),
        target=TARGET,
        ratio_low=ratio(wall["fft_low"], wall["truncated_low"]),
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

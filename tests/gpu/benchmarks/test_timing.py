"""What is timed and how, and what a tile costs."""

import statistics

import numpy as np
import pytest
from gpu.timing import FEWEST, latencies, percentiles, steady
from numpy.typing import NDArray
from reference import Reference

from spai_train.detectors.spai.model import SPAI, SPAIConfig
from tests.support.desk import Clock, FakeLane


def test_percentiles() -> None:
    seconds = np.random.default_rng(0).gamma(2, 0.01, 137).tolist()
    found = percentiles(seconds)
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    assert found["latency_p50_ms"] == pytest.approx(1e3 * statistics.median(seconds))
    assert found["latency_p99_ms"] == pytest.approx(1e3 * cuts[98])
    assert found["launches"] == 137


def test_latencies_are_of_one_launch_at_a_time() -> None:
    clock = Clock()
    lane = FakeLane(clock, 0.5, lambda: np.zeros((1, 1), np.float32))
    assert latencies(lane, 1, clock) == [0.5] * FEWEST
    assert len(latencies(lane, 100, clock)) == 200
    assert not lane.under_way


@pytest.mark.parametrize("launches", [1, 2, 3, 8])
def test_steady_keeps_two_launches_under_way(launches: int) -> None:
    clock, most = Clock(), 0

    def count() -> NDArray[np.float32]:
        nonlocal most
        most = max(most, 1 + sum(lane.under_way for lane in lanes))
        return np.zeros((1, 1), np.float32)

    lanes = [FakeLane(clock, 1, count) for _ in range(2)]
    steady(lanes, launches)
    assert sum(lane.launches for lane in lanes) == launches
    assert not any(lane.under_way for lane in lanes)
    assert clock.now == launches
    assert most == min(launches, 2)


def test_operations_of_a_tile(tiny_config: SPAIConfig) -> None:
    """Two a multiplication: patch embedding, blocks, projectors and context of three branches, and the filter."""
    config, model = tiny_config, SPAI(tiny_config).eval()
    side, width, p, blocks = config.tile_size, config.width, config.projection, len(config.blocks)
    patches = (side // config.patch_size) ** 2
    tokens, hidden = patches + 1, int(config.mlp_ratio * width)
    embedding = patches * 3 * config.patch_size**2 * width
    block = tokens * width * (4 * width + 2 * hidden) + 2 * tokens * tokens * width
    projectors = blocks * patches * (width * p + (config.projection_layers - 1) * p * p)
    layers = (config.projection_layers - 1) * p * p
    context = blocks * (2 * p * p + layers) + p * p + layers
    encoder = 2 * (3 * (embedding + config.depth * block + projectors) + context)
    found = Reference(model, np.zeros((1, side, side, 3), np.uint8)).flop_per_tile
    filtering = found - encoder
    assert 0 < filtering <= 2 * 3 * 4 * 2 * side * side * side  # at most four full complex products a channel

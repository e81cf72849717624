"""The camera against what its stages are defined to do."""

import numpy as np
import pytest
import torch

from spai_train.simulation.camera import Camera, demosaic, gaussian, mosaic, shrink_details, unsharp
from spai_train.simulation.scenes import dead_leaves

CLEAN = Camera(blur=0.3, phase=(0, 0), shot=0.0, read=0.0, demosaic="malvar", denoise=0.0, sharpen=0.0)


@pytest.mark.parametrize("phase", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_mosaic_keeps_one_colour_a_pixel(phase: tuple[int, int]) -> None:
    """A quarter of the pixels is red, at the phase, a quarter blue, opposite, half green."""
    light = torch.zeros(1, 3, 8, 10)
    light[:, 0], light[:, 1], light[:, 2] = 1, 2, 3
    raw = mosaic(light, phase)[0, 0]
    expected = torch.full((8, 10), 2.0)
    for row in range(8):
        for column in range(10):
            if (row % 2, column % 2) == phase:
                expected[row, column] = 1
            elif (row % 2, column % 2) == (1 - phase[0], 1 - phase[1]):
                expected[row, column] = 3
    torch.testing.assert_close(raw, expected)


@pytest.mark.parametrize("method", ["malvar", "bilinear"])
@pytest.mark.parametrize("phase", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_demosaicing_is_exact_on_flat_colours_and_grey_ramps(method: str, phase: tuple[int, int]) -> None:
    flat = torch.tensor([0.2, 0.5, 0.8]).reshape(1, 3, 1, 1).expand(1, 3, 16, 16)
    torch.testing.assert_close(demosaic(mosaic(flat, phase), phase, method), flat)
    ramp = torch.linspace(0, 1, 16).expand(1, 3, 16, 16)
    rebuilt = demosaic(mosaic(ramp, phase), phase, method)
    torch.testing.assert_close(rebuilt[..., 4:-4, 4:-4], ramp[..., 4:-4, 4:-4])


def test_gaussian_spreads_a_point_by_its_standard_deviation() -> None:
    point = torch.zeros(1, 1, 31, 31)
    point[..., 15, 15] = 1
    spread = gaussian(point, 1.5)[0, 0]
    offset = torch.arange(31.0) - 15
    assert spread.sum().item() == pytest.approx(1, abs=1e-5)
    assert (spread.sum(dim=1) * offset.square()).sum().sqrt().item() == pytest.approx(1.5, rel=0.03)


def test_denoising_takes_small_details_and_leaves_edges() -> None:
    torch.manual_seed(0)
    edge = (torch.arange(32) >= 16).float().expand(1, 1, 32, 32)
    noisy = edge + 0.005 * torch.randn(1, 1, 32, 32)
    denoised = shrink_details(noisy, 0.02)
    assert denoised[..., :12].std() < 0.5 * noisy[..., :12].std()
    assert (denoised[..., 16] - denoised[..., 15]).mean() > 0.9


def test_sharpening_by_nothing_is_identity_and_overshoots_at_edges_otherwise() -> None:
    edge = (torch.arange(32) >= 16).float().expand(1, 1, 32, 32)
    torch.testing.assert_close(unsharp(edge, 0), edge)
    assert unsharp(edge, 0.5).max() > 1.1


def test_a_clean_camera_reproduces_a_smooth_scene() -> None:
    """8 bits of a gamma curve are all that is between scene and picture."""
    ramp = np.linspace(0.1, 0.9, 64, dtype=np.float32)
    scene = np.broadcast_to(ramp[None, :, None], (64, 64, 3)).copy()
    picture = CLEAN.photograph(scene, np.random.default_rng(0))
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    expected = 255 * scene ** (1 / 2.2)
    assert np.abs(picture - expected)[4:-4, 4:-4].max() < 1


def test_noise_has_the_variance_of_its_parameters() -> None:
    camera = Camera(blur=0.3, phase=(0, 0), shot=1e-3, read=5e-3, demosaic="bilinear", denoise=0.0, sharpen=0.0)
    scene = np.full((128, 128, 3), 0.5, np.float32)
    picture = camera.photograph(scene, np.random.default_rng(0))
    red = (picture[::2, ::2, 0] / 255.0) ** 2.2  # measured, not interpolated
    assert red.var() == pytest.approx(1e-3 * 0.5 + 5e-3**2, rel=0.1)


def test_a_photograph_follows_from_its_seed() -> None:
    def shoot(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return Camera.draw(rng).photograph(dead_leaves(rng, 64, 64), rng)

    np.testing.assert_array_equal(shoot(3), shoot(3))
    assert (shoot(3) != shoot(4)).any()

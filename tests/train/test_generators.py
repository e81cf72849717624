"""Generators leave the traces that they are there for, keep colour, and follow from their seed."""

import numpy as np
import pytest
import torch

from spai_train.simulation.drawing import photograph
from spai_train.simulation.generators import (
    AutoEncoder,
    GeneratorSpec,
    GeneratorTraining,
    LaplacianDecoder,
    make_generator,
    reconstruction_loss,
)

ALL = [
    GeneratorSpec(upsampling, factor)
    for upsampling in ("transposed", "nearest", "bilinear", "shuffle", "laplacian")
    for factor in (4, 8)
]
SHORT = GeneratorTraining(width=8, steps=15, batch_size=4, crops=16, crop_size=32)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return photograph(np.random.default_rng(0), 136, 160)


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.name)
def test_generated_image_keeps_size_and_colour(spec: GeneratorSpec, picture: np.ndarray) -> None:
    """Colour comes through the skip, even before any training."""
    torch.manual_seed(0)
    generated = spec.build(8).generate(picture, np.random.default_rng(0))
    assert generated.shape == picture.shape
    assert generated.dtype == np.uint8
    mean, expected = generated.mean(axis=(0, 1)), picture.mean(axis=(0, 1))
    assert np.abs(mean - expected).max() < 35
    assert (generated != picture).any()


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.name)
def test_noise_follows_from_the_generator_of_random_numbers(spec: GeneratorSpec, picture: np.ndarray) -> None:
    """And torch's own generator is left as it was."""
    generator = spec.build(8)
    state = torch.get_rng_state()
    first, again = (generator.generate(picture, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_does_not_fill_the_grid_is_cut_off(picture: np.ndarray) -> None:
    generated = AutoEncoder("nearest", 8, 8).generate(picture[:135, :157], np.random.default_rng(0))
    assert generated.shape == (128, 152, 3)


@pytest.mark.parametrize("factor", [4, 8])
@pytest.mark.parametrize("upsampling", ["transposed", "nearest", "bilinear", "shuffle"])
def test_latent_is_smaller_than_the_image_by_the_factor(upsampling: str, factor: int) -> None:
    generator = AutoEncoder(upsampling, factor, 8)
    latent = generator.encoder(torch.rand(1, 3, 64, 48))
    assert latent.shape == (1, 2 * factor, 64 // factor, 48 // factor)
    assert latent.numel() < 3 * 64 * 48 / 4


def test_laplacian_pyramid_without_flaws_is_identity_up_to_its_interpolation() -> None:
    """With all gains 1, only the difference of nearest and bilinear up-sampling is left: nothing on a flat image."""
    decoder = LaplacianDecoder(8)
    decoder.gains.fill_(1)
    flat = torch.full((1, 3, 32, 32), 0.4)
    torch.testing.assert_close(decoder(flat), flat)


def test_flawed_upsampling_shows_at_its_period() -> None:
    """A flat image comes back with a pattern whose spectrum is zero except at multiples of 1/8."""
    torch.manual_seed(0)
    rebuilt = LaplacianDecoder(8)(torch.full((1, 3, 64, 64), 0.5))
    power = torch.fft.fft2(rebuilt[0, 0].double()).abs().square()
    power[0, 0] = 0
    assert power[::8, ::8].sum() / power.sum() > 0.999
    assert power.sum() > 1


def test_training_lowers_the_loss_and_follows_from_its_seed() -> None:
    rng = np.random.default_rng(0)
    image = photograph(rng, 128, 128)
    crops = np.stack([image[y : y + 32, x : x + 32] for y, x in rng.integers(0, 96, (16, 2))])
    spec = GeneratorSpec("transposed", 4)
    torch.manual_seed(9)
    untrained = spec.build(8)
    trained, again = (make_generator(spec, crops, SHORT, seed=9) for _ in range(2))
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        before, after = (reconstruction_loss(each(pixels), pixels).item() for each in (untrained, trained))
    assert after < 0.8 * before
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    assert not any(parameter.requires_grad for parameter in trained.parameters())

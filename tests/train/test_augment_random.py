"""The randomness of augmentations: how often, how much, and that it follows from the seed alone."""

import io
import random
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binom, kstest

from spai_runtime.images import Picture
from spai_train.data.augment import Augment
from spai_train.data.augmentation import FINETUNE, PLAIN
from tests.support.augmenting import ALL, IMAGE, PICTURE, PROBABILITIES, SIZE, alone, grey
from tests.support.images import pixels
from tests.support.noise import power


def likely(count: int, trials: int, probability: float) -> bool:
    """Whether a fair count falls there but once in a million times."""
    low, high = binom.ppf((5e-7, 1 - 5e-7), trials, probability)
    return bool(low <= count <= high)


def test_half_of_the_views_are_flipped_either_way_apart() -> None:
    corners = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    augment = Augment(replace(PLAIN, horizontal_flip=0.5, vertical_flip=0.5), 2)
    seen = Counter(int(augment(Picture.from_array(corners), seed)[0, 0, 0]) for seed in range(2000))
    assert sorted(seen) == [0, 3, 6, 9]
    assert all(likely(count, 2000, 1 / 4) for count in seen.values())


def test_kernel_sizes_come_as_often_as_albumentations_draws_them() -> None:
    """Of the seven numbers from 3 to 9, the even ones count as the next: a wide blur of a point shows the size."""
    point = np.zeros((11, 11, 3), np.uint8)
    point[5, 5] = 255
    augment = Augment(replace(PLAIN, blur=1.0, blur_sigma=(20.0, 20.0)), 11)
    seen = Counter(int(augment(Picture.from_array(point), seed)[5, :, 0].astype(bool).sum()) for seed in range(2000))
    assert sorted(seen) == [3, 5, 7, 9]
    assert likely(seen[3], 2000, 1 / 7)
    assert all(likely(seen[size], 2000, 2 / 7) for size in (5, 7, 9))


def test_variance_of_the_noise_is_even_between_its_limits() -> None:
    views = [alone(grey(128), seed, noise=1.0) for seed in range(300)]
    drawn = np.linspace(5, 60, 1000)
    variances = np.interp([view.var() for view in views], [power(variance**0.5) for variance in drawn], drawn)
    assert kstest(variances, "uniform", (10, 40)).pvalue > 1e-3
    error = 5 * np.sqrt(2 / views[0].size)
    assert 10 * (1 - error) < min(variances) < max(variances) < 50 * (1 + error)
    assert abs(np.mean(views) - 128) < 5 * np.sqrt(30 / np.size(views))


def test_brightness_is_even_between_its_limits() -> None:
    still = {"jitter": 1.0, "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}
    factors = [alone(grey(200), seed, **still, brightness=(0.8, 1.2)).mean() / 200 for seed in range(300)]
    assert kstest(factors, "uniform", (0.8, 0.4)).pvalue > 1e-3


@pytest.mark.parametrize("codec", ["jpeg", "webp"])
def test_compression_is_pillows_at_every_quality_between_the_limits(codec: str) -> None:
    files = {}
    for quality in (80, 81, 82):  # which every codec tells apart
        file = io.BytesIO()
        Image.fromarray(IMAGE).save(file, codec, quality=quality)
        files[np.asarray(Image.open(file).convert("RGB")).tobytes()] = quality
    settings = {codec: 1.0, f"{codec}_quality": (80, 82)}
    seen = Counter(files[alone(seed=seed, **settings).tobytes()] for seed in range(200))
    assert all(likely(seen[quality], 200, 1 / 3) for quality in (80, 81, 82))


@pytest.mark.parametrize("name", PROBABILITIES)
def test_step_comes_as_often_as_its_probability_says(name: str) -> None:
    augment = Augment(replace(PLAIN, **{name: 0.3}, blur_sigma=(0.5, 0.5), jpeg_quality=(5, 5)), 16)
    image = pixels(16, 16)
    picture = Picture.from_array(image)
    changed = sum(not np.array_equal(augment(picture, seed), image) for seed in range(400))
    assert likely(changed, 400, 0.3)


# What all steps make of a picture under some seeds: run here, and in a process with other threads.
FINGERPRINT = """
import dataclasses, hashlib
import numpy as np, torch
from spai_runtime.images import Picture
from spai_train.data.augment import Augment
from spai_train.data.augmentation import FINETUNE
settings = dataclasses.replace(FINETUNE, rotation=1.0, blur=1.0, noise=1.0, jitter=1.0, sharpen=1.0, jpeg=1.0, webp=1.0)
picture = Picture.from_array(np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8))
fingerprint = hashlib.sha256(Augment(settings, 48).views(picture, range(8)).tobytes()).hexdigest()
"""


def fingerprint() -> str:
    names: dict[str, str] = {}
    exec(FINGERPRINT, names)
    return names["fingerprint"]


def test_view_follows_from_its_seed_in_any_process_and_after_any_call() -> None:
    expected = fingerprint()
    torch.rand(7), np.random.rand(7), random.random()  # noqa: NPY002  whatever else draws
    Augment(FINETUNE, 16)(PICTURE, 5)
    assert fingerprint() == expected
    code = f"import torch\ntorch.set_num_threads(3)\n{FINGERPRINT}\nprint(fingerprint)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


def test_view_does_not_depend_on_other_threads() -> None:
    augment = Augment(ALL, SIZE)
    alone = [augment(PICTURE, seed) for seed in range(24)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda seed: augment(PICTURE, seed), range(24)))
    np.testing.assert_array_equal(together, alone)


def test_other_generators_of_random_numbers_are_left_as_they_were() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    Augment(ALL, SIZE).views(PICTURE, range(4))
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]

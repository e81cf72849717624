"""The fit of a probe on 10,000 images of 1024 features, for all penalties: what follows when features are computed."""

import os
from statistics import median
from typing import Any

import numpy as np
from conftest import Report
from measure import take_turns

from spai_train.probing.line import PENALTIES, Examples, fit_line
from spai_train.probing.options import Classifier

ROUNDS = int(os.environ.get("SPAI_BENCH_ROUNDS", "3"))
IMAGES, HELD_OUT, WIDTH = 8000, 2000, 1024
DECAY, TELLING, SHIFT = 0.7, slice(5, 60), 0.05  # of the deviations; axes that tell the classes apart, and by how much


def test_probe_fit(benchmark: Any, report: Report) -> None:
    examples = drawn(IMAGES + HELD_OUT)
    parts = [Examples(examples.features[part], examples.labels[part]) for part in (slice(IMAGES), slice(IMAGES, None))]
    lines = {classifier: fit_line(classifier, *parts, 0) for classifier in Classifier}
    contenders = {classifier.value: lambda of=classifier: fit_line(of, *parts, 0) for classifier in Classifier}
    times = benchmark.pedantic(take_turns, args=(contenders, ROUNDS), rounds=1)
    report(
        "probe_fit",
        **{f"{name}_s": median(found.wall) for name, found in times.items()},
        **{f"{name}_cpu_s": median(found.cpu) for name, found in times.items()},
        **{f"{classifier}_C": line.penalty for classifier, line in lines.items()},
        **{f"{classifier}_val_log_loss": line.loss for classifier, line in lines.items()},
        images=IMAGES,
        held_out=HELD_OUT,
        width=WIDTH,
        penalties=len(PENALTIES),
        rounds=ROUNDS,
    )


def drawn(count: int) -> Examples:
    """Features as those of a network are: correlated, of falling variance, a few directions telling of the class."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, count)
    latent = random.normal(size=(count, WIDTH)) * np.arange(1, WIDTH + 1) ** -DECAY
    latent[:, TELLING] += SHIFT * (labels[:, None] - 0.5)
    rotation = np.linalg.qr(random.normal(size=(WIDTH, WIDTH)))[0]
    return Examples((latent @ rotation).astype(np.float32), labels)

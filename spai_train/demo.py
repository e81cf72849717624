"""The demo detector, from a seed to a checkpoint and a report: `spai-train demo`.

Generators are trained on scenes, both classes are drawn, a frozen backbone is whitened, the rest is trained on its
tokens, and the threshold comes from real images that nothing else saw. Beside it run what it should be compared
with: the same training on a random backbone, and trivial baselines.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from spai_train.baselines import BASELINES, Baseline
from spai_train.checkpoint import Card, save_checkpoint
from spai_train.data.simulate import Sample, worker_pool
from spai_train.frozen import cache_tokens, train_head
from spai_train.metrics import Interval, Scores, bootstrap_auc, bootstrap_rate, calibrate
from spai_train.models.spai import SPAI
from spai_train.recipe import Recipe, Stream
from spai_train.scoring import random_view, scores
from spai_train.sets import FORMATS, GROUPS, ImageSets, draw_samples, draw_sets, train_generators, write_samples
from spai_train.whitening import sample_patches, scale_by_fan_in, whiten_patches

NAME = "spai-demo"
NOTICE = (
    "demo detector: it finds simulated up-sampling artifacts, which shows the tool working; "
    "its scores are no verdict on real photographs"
)
DEMO, RANDOM = "SPAI", "random backbone"
WHITENED = 400  # real views that the patches to whiten are taken from


@dataclass(frozen=True)
class Scored:
    """What one detector says of the test images, and, by format, of the real ones behind its threshold, if any."""

    test: dict[tuple[str, str], Scores]
    calibration: dict[str, Scores] = field(default_factory=dict)
    held_out: dict[str, Scores] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What the report is written from.

    :param aucs: by detector, then (generators, format)
    :param false_positives: of the demo detector at its threshold, by set
    :param samples: score of each sample image
    """

    recipe: Recipe
    threshold: float
    aucs: dict[str, dict[tuple[str, str], Interval]]
    false_positives: dict[str, Interval]
    true_positives: dict[tuple[str, str], Interval]
    samples: dict[str, float]
    seconds: dict[str, float]


class Stopwatch:
    """Seconds of each stage, told to `log` as they pass."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self.seconds: dict[str, float] = {}
        self._log = log

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 1)
        self._log(f"{name}: {self.seconds[name]:.1f} s")


def run_demo(recipe: Recipe, output: Path, log: Callable[[str], None]) -> Outcome:
    """Follows the recipe; writes `demo.safetensors` and `samples/` into `output`, which is made."""
    output.mkdir(parents=True, exist_ok=True)
    watch = Stopwatch(log)
    with watch.stage("generators"):
        generators = train_generators(recipe)
    with watch.stage("images"):
        sets = draw_sets(recipe, generators)
        samples = draw_samples(recipe, generators)
    with watch.stage("detectors"):
        model, scored = train_detectors(recipe, sets)
    with watch.stage("baselines"):
        scored |= run_baselines(recipe, sets)
    with watch.stage("evaluation"):
        outcome = evaluate(recipe, scored, score_samples(model, samples), watch.seconds)
    save_checkpoint(output / "demo.safetensors", model, make_card(outcome))
    write_samples(output / "samples", samples)
    return outcome


def train_detectors(recipe: Recipe, sets: ImageSets) -> tuple[SPAI, dict[str, Scored]]:
    """The demo detector and its scores, and those of the same training on a random backbone, side by side."""
    with worker_pool(recipe.workers) as pool:
        demo = pool.submit(train_detector, recipe, sets, whiten=True)
        without_threshold = replace(sets, calibration={}, held_out={})
        random = pool.submit(train_detector, recipe, without_threshold, whiten=False)
        model, scored = demo.result()
        return model, {DEMO: scored, RANDOM: random.result()[1]}


def train_detector(recipe: Recipe, sets: ImageSets, *, whiten: bool) -> tuple[SPAI, Scored]:
    """:param whiten: whether the backbone's patch embedding whitens real patches; otherwise it is random"""
    seed = recipe.number(Stream.DETECTOR)
    rng = np.random.default_rng(seed)
    views = [random_view(sample.pixels(), recipe.model.tile_size, rng) for sample in sets.train]
    labels = np.array([sample.generated for sample in sets.train], np.int64)
    model = initial_model(recipe, views, labels, seed, whiten=whiten)
    with tempfile.TemporaryDirectory() as folder:
        cache = cache_tokens(model.encoder, views, Path(folder) / "tokens.npy", recipe.tokens, seed)
        train_head(model, cache, labels, recipe.schedule, seed)
    test = {key: scores(model, samples) for key, samples in sets.test.items()}
    calibration, held_out = (
        {form: scores(model, samples) for form, samples in part.items()} for part in (sets.calibration, sets.held_out)
    )
    return model, Scored(test, calibration, held_out)


def initial_model(
    recipe: Recipe, views: Sequence[NDArray[np.uint8]], labels: NDArray[np.int64], seed: int, *, whiten: bool
) -> SPAI:
    """:param views: (1, S, S, 3) each; the real ones are whitened"""
    torch.manual_seed(seed)
    model = SPAI(recipe.model).eval()
    if whiten:
        real = [view for view, label in zip(views, labels, strict=True) if not label][:WHITENED]
        rng = np.random.default_rng(seed)
        patches = sample_patches(model.encoder, torch.from_numpy(np.concatenate(real)), recipe.patches, rng)
        whiten_patches(model.encoder.backbone, patches)
    for module in (model.encoder.projectors, model.encoder.context, model.head):
        scale_by_fan_in(module)
    return model


def run_baselines(recipe: Recipe, sets: ImageSets) -> dict[str, Scored]:
    """Each trivial baseline, trained and tested on the files that the detector saw."""
    with worker_pool(recipe.workers) as pool:
        tasks = {name: pool.submit(run_baseline, name, recipe.seed, sets.train, sets.test) for name in BASELINES}
        return {name: task.result() for name, task in tasks.items()}


def run_baseline(name: str, seed: int, train: list[Sample], test: dict[tuple[str, str], list[Sample]]) -> Scored:
    """:param name: a key of BASELINES"""
    baseline = Baseline(name, seed).fit(train, [sample.generated for sample in train])
    return Scored({key: baseline.scores(samples) for key, samples in test.items()})


def evaluate(
    recipe: Recipe, scored: Mapping[str, Scored], samples: dict[str, float], seconds: dict[str, float]
) -> Outcome:
    """AUC of every detector, and the rates of the demo detector at its threshold, with bootstrap intervals."""
    seed = recipe.number(Stream.BOOTSTRAP)
    demo = scored[DEMO]
    threshold = max(calibrate(real, recipe.false_positives) for real in demo.calibration.values())  # of any format
    keys = [(group, form) for form in FORMATS for group in GROUPS]
    parts = {
        "calibration": demo.calibration,
        "held-out": demo.held_out,
        "test": {form: demo.test["real", form] for form in FORMATS},
    }
    reals = {f"{part}, {form}": real for part, by_format in parts.items() for form, real in by_format.items()}
    return Outcome(
        recipe=recipe,
        threshold=threshold,
        aucs={
            name: {
                (group, form): bootstrap_auc(detector.test["real", form], detector.test[group, form], seed)
                for group, form in keys
            }
            for name, detector in scored.items()
        },
        false_positives={name: bootstrap_rate(real, threshold, seed) for name, real in reals.items()},
        true_positives={key: bootstrap_rate(demo.test[key], threshold, seed) for key in keys},
        samples=samples,
        seconds=seconds,
    )


def make_card(outcome: Outcome) -> Card:
    """What the checkpoint says of itself."""
    count, rate = outcome.recipe.count.calibration, outcome.recipe.false_positives
    images = f"{count} held-out simulated real images, as PNG and as JPEG"
    source = f"calibrated to at most {rate:.0%} false positives on {images}"
    return Card(NAME, NOTICE, outcome.threshold, source)


def score_samples(model: SPAI, samples: Mapping[str, Sample]) -> dict[str, float]:
    """Score of each sample image, by file name."""
    return dict(zip(samples, scores(model, list(samples.values())).tolist(), strict=True))

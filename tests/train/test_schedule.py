"""The curves against timm's and torch's schedulers and upstream's formulas; the linear rule against MFM's own run."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from timm.scheduler import CosineLRScheduler, StepLRScheduler
from torch import nn

from spai_train.fit import FitRecipe
from spai_train.pretrain import PretrainRecipe
from spai_train.recipe import load_recipe
from spai_train.sections import RecipeError
from spai_train.training.optimizer import OptimizerSettings, PretrainingOptimizer, build_optimizer
from spai_train.training.schedule import Curve, PretrainingSchedule, Schedule, ScheduleSettings

LENGTHS = [(35, 5, 1), (35, 5, 7), (10, 0, 3), (4, 0.5, 5), (2, 3, 2)]  # epochs, of warm-up, steps an epoch
PEAKS = (1.0, 0.25)
Rates = NDArray[np.float64]


def ours(settings: ScheduleSettings, steps: int) -> Rates:
    """(steps, 2) the rates of every optimizer step."""
    schedule = Schedule(settings, steps)
    return np.array([[schedule.rate(step, peak) for peak in PEAKS] for step in range(schedule.total_steps)])


def driven(build: Callable[[torch.optim.Optimizer], Any], steps: int) -> Rates:
    """The same by a scheduler that is moved on behind each optimizer step, to its number, as upstream's loop does."""
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": peak} for peak in PEAKS]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    scheduler, rates = build(optimizer), []
    for step in range(steps):
        rates.append([group["lr"] for group in optimizer.param_groups])
        scheduler.step_update(step)
    return np.array(rates)


def warm(time: int, peak: float, settings: ScheduleSettings, steps: int) -> float:
    return settings.warmup_rate + time * (peak - settings.warmup_rate) / steps


@pytest.mark.parametrize(("epochs", "warmup", "steps"), LENGTHS)
def test_cosine_is_timms(epochs: int, warmup: float, steps: int) -> None:
    settings = ScheduleSettings(epochs, warmup, warmup_rate=1e-6, final_rate=2e-6)

    def build(optimizer: torch.optim.Optimizer) -> CosineLRScheduler:
        return CosineLRScheduler(
            optimizer,
            t_initial=epochs * steps,
            warmup_t=int(warmup * steps),
            warmup_lr_init=1e-6,
            lr_min=2e-6,
            cycle_limit=1,
            t_in_epochs=False,
        )

    np.testing.assert_allclose(ours(settings, steps), driven(build, epochs * steps), rtol=1e-12)


@pytest.mark.parametrize("every", [1, 2.5, 30])
@pytest.mark.parametrize(("epochs", "warmup", "steps"), LENGTHS)
def test_step_is_timms(epochs: int, warmup: float, steps: int, every: float) -> None:
    """Without `warmup_prefix`, which the version that upstream pins has not yet: it counts from the first step."""
    settings = ScheduleSettings(epochs, warmup, 1e-6, name="step", decay_epochs=every, decay_rate=0.3)

    def build(optimizer: torch.optim.Optimizer) -> StepLRScheduler:
        return StepLRScheduler(
            optimizer,
            decay_t=int(every * steps),
            decay_rate=0.3,
            warmup_t=int(warmup * steps),
            warmup_lr_init=1e-6,
            warmup_prefix=False,
            t_in_epochs=False,
        )

    np.testing.assert_allclose(ours(settings, steps), driven(build, epochs * steps), rtol=1e-12)


@pytest.mark.parametrize(("epochs", "warmup", "steps"), LENGTHS)
def test_linear_is_upstreams_formula(epochs: int, warmup: float, steps: int) -> None:
    settings = ScheduleSettings(epochs, warmup, warmup_rate=1e-6, name="linear")
    total, before = epochs * steps, int(warmup * steps)
    expected = []
    for time in (max(step - 1, 0) for step in range(total)):
        falling = [v - ((v - v * 0.01) * ((time - before) / (total - before or 1))) for v in PEAKS]
        expected.append([warm(time, v, settings, before) for v in PEAKS] if time < before else falling)
    np.testing.assert_allclose(ours(settings, steps), expected, rtol=1e-12)


def test_linear_is_torchs() -> None:
    settings = ScheduleSettings(8, 0, name="linear")
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=24)
    expected = []
    for _ in range(23):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(ours(settings, 3)[1:, 0], expected, rtol=1e-9)


@pytest.mark.parametrize(("warmup", "milestones"), [(0, [1]), (0, [2, 5]), (2, [2, 3, 9]), (0.5, [1, 1])])
def test_multistep_is_torchs(warmup: float, milestones: list[int]) -> None:
    settings = ScheduleSettings(10, warmup, 1e-6, name="multistep", decay_rate=0.3, milestones=tuple(milestones))
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3 * epoch for epoch in milestones], gamma=0.3)
    expected = []
    for time in range(29):
        before = int(3 * warmup)
        expected.append(warm(time, 1.0, settings, before) if time < before else optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(ours(settings, 3)[1:, 0], expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["cosine", "linear", "step", "multistep"])
def test_steps_beyond_the_end_have_the_last_rate(name: Curve) -> None:
    schedule = Schedule(ScheduleSettings(4, 1, 0.1, 0.2, name=name, decay_epochs=1, milestones=(2, 3)), 5)
    last = {"cosine": 0.2, "linear": 0.01, "step": 0.1**5, "multistep": 0.01}[name]
    assert schedule.rate(29, 1.0) == pytest.approx(last)


def test_the_cosine_is_the_closed_formula() -> None:
    schedule = Schedule(ScheduleSettings(20, 4, warmup_rate=0.1, final_rate=0.2), 1)
    rates = [schedule.rate(step, 1.0) for step in range(23)]
    assert rates[:5] == pytest.approx([0.1, 0.1, 0.325, 0.55, 0.775])
    assert rates[5:21] == pytest.approx([0.2 + 0.4 * (1 + math.cos(math.pi * t / 20)) for t in range(4, 20)])
    assert rates[21:] == [0.2, 0.2]


def test_the_published_settings() -> None:
    """SPAI warms up for 5 of 35 epochs, MFM for 20 of 300."""
    spai, mfm = (Schedule(settings, 100) for settings in (ScheduleSettings(), PretrainingSchedule()))
    assert (spai.total_steps, spai.warmup_steps) == (3500, 500)
    assert (mfm.total_steps, mfm.warmup_steps) == (30_000, 2000)
    assert spai.rate(501, 5e-4) == pytest.approx(0.95 * 5e-4, rel=1e-3)
    optimizer = PretrainingOptimizer()
    assert (optimizer.betas, optimizer.layer_decay, optimizer.clip) == ((0.9, 0.95), 1.0, 3.0)


def test_a_recipe_that_names_one_key_of_pre_training_keeps_mfms_others(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("pretrain:\n  optimizer: {weight_decay: 0.1}\n  schedule: {epochs: 7}\n")
    recipe = load_recipe(tmp_path / "own.yaml", "pretrain", PretrainRecipe)
    assert recipe.optimizer == PretrainingOptimizer(weight_decay=0.1)
    assert (recipe.optimizer.learning_rate, recipe.optimizer.clip, recipe.optimizer.layer_decay) == (3e-4, 3.0, 1.0)
    assert (recipe.schedule.epochs, recipe.schedule.warmup_epochs, recipe.schedule.base_batch_size) == (7, 20.0, 512)


def test_pre_training_by_the_backbone_mfm_alone() -> None:
    with pytest.raises(RecipeError, match="restored by the backbone mfm alone, not by clip"):
        load_recipe("spai", "pretrain", PretrainRecipe, {"model.backbone": "clip"})


@pytest.mark.parametrize(("gpus", "images", "accumulate"), [(16, 128, 1), (8, 128, 2), (1, 128, 1), (1, 8, 1)])
def test_pre_training_scales_its_rates_as_mfms_main_does(gpus: int, images: int, accumulate: int) -> None:
    """`linear_scaled_lr = BASE_LR · BATCH_SIZE · world_size / 512`, times the accumulation, of all three."""
    recipe = load_recipe("spai", "pretrain", PretrainRecipe, {"batch_size": gpus * images * accumulate})
    factor = images * gpus / 512.0 * accumulate
    scaled = recipe.scaled
    assert scaled.optimizer.learning_rate == pytest.approx(3e-4 * factor)
    assert (scaled.schedule.warmup_rate, scaled.schedule.final_rate) == pytest.approx(
        (2.5e-7 * factor, 2.5e-6 * factor)
    )
    assert scaled.scaled == scaled


def test_the_published_pre_training_has_its_rates() -> None:
    scaled = PretrainRecipe().scaled
    found = (scaled.optimizer.learning_rate, scaled.schedule.warmup_rate, scaled.schedule.final_rate)
    assert found == pytest.approx((1.2e-3, 1e-6, 1e-5))
    assert PretrainRecipe().rates == (
        "learning rates of steps of 2048 images, scaled from 512: 1e-06 in the first, 0.0012 at the peak, "
        "1e-05 in the last (adamw, cosine)"
    )


@pytest.mark.parametrize("recipe", ["spai", "demo"])
def test_fine_tuning_takes_its_rates_as_they_are(recipe: str) -> None:
    """`TRAIN.SCALE_LR` is off in upstream's configuration."""
    for batch_size in (8, 72):
        found = load_recipe(recipe, "fit", FitRecipe, {"batch_size": batch_size})
        assert found.scaled == found
    scaled = load_recipe(recipe, "fit", FitRecipe, {"batch_size": 36, "schedule.base_batch_size": 72}).scaled
    assert scaled.optimizer.learning_rate == found.optimizer.learning_rate / 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "multistep"}, r"multistep needs milestones: .* e\.g\. \[20, 30\]"),
        ({"name": "multistep", "milestones": [20, 10]}, r"milestones are \[20.*, 10.*\]; put them in order"),
        ({"name": "multistep", "milestones": [3]}, "after 5 warmup_epochs"),
        ({"name": "exponential"}, "exponential"),
        ({"decay_epochs": 0}, "> 0"),
        ({"base_batch_size": 0}, ">= 1"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_one_sentence(given: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe("spai", "fit", FitRecipe, {f"schedule.{key}": value for key, value in given.items()})


def test_a_resumed_optimizer_has_the_rates_of_one_that_never_stopped() -> None:
    schedule = Schedule(ScheduleSettings(epochs=4, warmup_epochs=1), steps_per_epoch=3)
    for settings in (OptimizerSettings(), replace(OptimizerSettings(), name="sgd")):
        whole, half = (build_optimizer(nn.Linear(2, 1), settings, depth=2) for _ in range(2))
        for step in range(8):
            schedule.set_rates(whole, step)
        half.load_state_dict(whole.state_dict())
        for optimizer in (whole, half):
            schedule.set_rates(optimizer, 8)
        assert [group["lr"] for group in half.param_groups] == [group["lr"] for group in whole.param_groups]
        assert half.param_groups[0]["lr"] == schedule.rate(8, 5e-4)

"""One step of `fit` against the same step in upstream's formulation: images of four views, a frozen ViT-B/16.

Upstream encodes one view of all images after the other, in fp32 and in three passes; ours encodes everything as one
batch, in fp32 and in bf16. They share weights and AdamW, dropout is on, and they take turns.
"""

import os
from statistics import median
from typing import Any

import torch
from baseline import BaselineSPAI
from conftest import Report
from measure import Times, ratio, take_turns
from steps import MODEL, VIEWS, Step, random_batch, trainee

TARGET, TARGET_FP32 = 1.5, 1.0
ROUNDS = int(os.environ.get("SPAI_BENCH_ROUNDS", "3"))
IMAGES = 2


def test_fit_step(benchmark: Any, report: Report) -> None:
    model, optimizer = trainee()
    batch = random_batch(model.config, IMAGES)
    steps = {
        "upstream_fp32": Step(BaselineSPAI(model), optimizer, batch),
        "ours_fp32": Step(model, optimizer, batch),
        "ours_bf16": Step(model, optimizer, batch, torch.bfloat16),
    }
    differences = _differences(steps)
    assert differences["loss_fp32"] < 1e-5 and differences["gradient_fp32"] < 1e-3
    assert differences["loss_bf16"] < 0.05 and differences["gradient_bf16"] < 0.3
    steps["ours_bf16"]()  # AdamW makes its state, which all three share
    times = benchmark.pedantic(take_turns, args=(steps, ROUNDS), rounds=1)
    _report(report, times, differences, model.encoder.backbone.chunk)


def _differences(steps: dict[str, Step]) -> dict[str, float]:
    """Of the losses, and of the gradients as a share of upstream's norm."""
    loss, gradient = steps["upstream_fp32"].undisturbed()
    found = {}
    for precision in ("fp32", "bf16"):
        ours = steps[f"ours_{precision}"].undisturbed()
        found[f"loss_{precision}"] = abs(ours[0] - loss)
        found[f"gradient_{precision}"] = float((ours[1] - gradient).norm() / gradient.norm())
    return found


def _report(report: Report, times: dict[str, Times], differences: dict[str, float], chunk: int | None) -> None:
    """`ratio` is bf16's, for which the target is set."""
    upstream, fp32, bf16 = (times[name] for name in ("upstream_fp32", "ours_fp32", "ours_bf16"))
    report(
        f"fit_step-{MODEL}",
        **{f"{name}_images_per_s": IMAGES / median(seconds.wall) for name, seconds in times.items()},
        ratio=ratio(upstream.wall, bf16.wall),
        target=TARGET,
        ratio_fp32=ratio(upstream.wall, fp32.wall),
        target_fp32=TARGET_FP32,
        ratio_of_cpu_time=ratio(upstream.cpu, bf16.cpu),
        ratio_of_cpu_time_fp32=ratio(upstream.cpu, fp32.cpu),
        differences=differences,
        images=IMAGES,
        views=VIEWS,
        chunk=chunk,
        rounds=ROUNDS,
    )

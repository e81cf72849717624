"""The loop on a task of a dozen weights, whose steps can be written out."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from spai_runtime.cli.progress import ShownProgress
from spai_train.data.dataset import Batch, Failure, Sample
from spai_train.data.order import Order, Plan, Ticket, permutation
from spai_train.data.rows import DataSettings
from spai_train.training import loop as looping
from spai_train.training.failures import TrainingError
from spai_train.training.launch import launch
from spai_train.training.loop import Loop
from spai_train.training.optimizer import OptimizerSettings
from spai_train.training.run import Metrics, RunFolder
from spai_train.training.schedule import ScheduleSettings
from spai_train.training.settings import TrainingSettings
from spai_train.training.stopping import EarlyStopping, StoppingSettings
from spai_train.training.task import Outcome
from tests.support.terminals import on_terminal
from tests.support.training import contents, metrics_of

SETTINGS = TrainingSettings(
    data=DataSettings(workers=0),
    batch_size=4,
    device="cpu",
    trackers=(),
    optimizer=OptimizerSettings(learning_rate=0.1, weight_decay=0.0),
    schedule=ScheduleSettings(epochs=4, warmup_epochs=1, warmup_rate=0.02, final_rate=0.01),
)
VIEWS = np.random.default_rng(0).integers(0, 256, (8, 1, 2, 2, 3)).astype(np.uint8)
BROKEN = 3  # an image that is always replaced


class Images(Dataset[Sample]):
    def __getitem__(self, ticket: Ticket) -> Sample:
        failures = (Failure("broken.png", "empty"),) if ticket.image == BROKEN else ()
        return Sample(VIEWS[ticket.image], ticket.image % 2, failures)


class Line(nn.Module):
    """Twelve weights, and one that the loss never asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 12))
        self.unused = nn.Parameter(torch.ones(1))

    def forward(self, views: Tensor) -> Tensor:
        return (views.flatten(1) / 255) @ self.weight


class LineTask:
    """:param losses: of the validation, an epoch each
    :param fails: step → what happens in it
    """

    def __init__(self, folder: RunFolder, losses: Sequence[float] = (), fails: dict[int, Any] | None = None) -> None:
        self.folder, self.losses, self.fails = folder, list(losses), fails or {}
        self.model, self.images, self.calls = Line(), Images(), 0

    def loss(self, model: nn.Module, batch: Batch, seed: int) -> Tensor:  # noqa: ARG002
        loss = F.mse_loss(model(batch.views), batch.labels)
        failure = self.fails.get(self.calls)
        self.calls += 1
        if isinstance(failure, Exception):
            raise failure
        return loss if failure is None else loss * failure

    def validate(self) -> Metrics:
        return {"val_loss": self.losses.pop(0)} if self.losses else {}

    def save(self, name: str) -> None:
        self.folder.replace(f"{name}.pt", lambda path: torch.save(self.model.state_dict(), path))


def loop(
    task: LineTask, settings: TrainingSettings, patience: int | None = None, accelerator: Accelerator | None = None
) -> Loop:
    accelerator = accelerator or launch(settings, task.folder.path, all_train=True)
    plan = Plan(len(VIEWS), settings.batch_size, settings.schedule.epochs, settings.accumulate)
    optimizer = torch.optim.SGD([{"params": [task.model.weight], "peak": settings.optimizer.learning_rate}], lr=0)
    stopping = EarlyStopping(StoppingSettings(patience=patience)) if task.losses else None
    task.folder.begin("fit", settings)
    return Loop(task, settings, plan, optimizer, task.folder, accelerator, stopping, keep_all=True)


def train(path: Path, settings: TrainingSettings = SETTINGS, **options: Any) -> tuple[LineTask, Outcome]:
    task = LineTask(RunFolder(path), **options)
    return task, loop(task, settings).run(resume=False)


def weight(path: Path) -> Tensor:
    return torch.load(path)["weight"]  # type: ignore[no-any-return]


def written_out(clip: float | None = None, skipped: int = 0) -> tuple[list[Tensor], list[float], list[float]]:
    """Gradient descent in float64: weights after every step, losses and norms of the gradients.

    :param skipped: first steps that change nothing
    """
    x, weights, losses, norms = torch.from_numpy(VIEWS).double().flatten(1) / 255, [], [], []
    w, labels = torch.linspace(-1, 1, 12).double(), torch.arange(8).remainder(2).double()
    for step in range(8):
        epoch, place = divmod(step, 2)
        chosen = torch.from_numpy(permutation(8, 0, epoch)[4 * place : 4 * place + 4])
        error = x[chosen] @ w - labels[chosen]
        gradient = 2 * x[chosen].T @ error / 4
        time = max(step - 1, 0)
        rate = 0.02 + (0.1 - 0.02) * time / 2 if time < 2 else 0.01 + 0.09 * (1 + math.cos(math.pi * time / 8)) / 2
        losses.append(float(error.square().mean()))
        norms.append(float(gradient.norm()))
        w = w - (step >= skipped) * rate * gradient * min(1.0, (clip or math.inf) / norms[-1])
        weights.append(w)
    return weights, losses, norms


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_epochs_are_gradient_descent_written_out(clip: float | None, accumulate: int, tmp_path: Path) -> None:
    settings = replace(SETTINGS, accumulate=accumulate, optimizer=replace(SETTINGS.optimizer, clip=clip))
    _, outcome = train(tmp_path, settings)
    weights, losses, norms = written_out(clip)
    for epoch in range(1, 5):
        torch.testing.assert_close(weight(tmp_path / f"epoch_{epoch:03d}.pt").double(), weights[2 * epoch - 1])
        metrics, steps = outcome.history[epoch - 1], slice(2 * epoch - 2, 2 * epoch)
        assert (metrics["epoch"], metrics["step"], metrics["unreadable"]) == (epoch, 2 * epoch, 1)
        assert metrics["train_loss"] == pytest.approx(np.mean(losses[steps]), rel=1e-6)
        assert metrics["gradient_norm"] == pytest.approx(np.mean(norms[steps]), rel=1e-6)
    assert metrics_of(tmp_path) == outcome.history
    assert outcome.best == outcome.history[-1]  # nothing is watched


def test_a_broken_image_is_named_once(tmp_path: Path) -> None:
    train(tmp_path)
    assert (tmp_path / "log.txt").read_text().count("skipped broken.png: empty") == 1


def test_it_stops_early_and_keeps_the_best(tmp_path: Path) -> None:
    task = LineTask(RunFolder(tmp_path), losses=(0.5, 0.4, 0.45, 0.3))
    outcome = loop(task, SETTINGS, patience=1).run(resume=False)
    assert (len(outcome.history), outcome.stopped, outcome.best["val_loss"]) == (3, True, 0.4)
    weights = {path.stem: weight(path) for path in tmp_path.glob("*.pt") if path.stem != "state"}
    assert weights.keys() == {"best", "last", "epoch_001", "epoch_002", "epoch_003"}
    assert torch.equal(weights["best"], weights["epoch_002"])
    assert torch.equal(weights["last"], weights["epoch_003"])
    assert "stopped early: val_loss was best in epoch 2" in (tmp_path / "log.txt").read_text()


def test_a_run_that_is_over_stays_as_it_is(tmp_path: Path) -> None:
    finished = loop(LineTask(RunFolder(tmp_path), losses=(0.5, 0.4, 0.45, 0.3)), SETTINGS, patience=1).run(resume=False)
    before = contents(tmp_path)
    task = LineTask(RunFolder(tmp_path), losses=(0.1,))
    assert loop(task, SETTINGS, patience=1).run(resume=True) == finished
    assert (contents(tmp_path), task.calls) == (before, 0)


def test_over_fitting_is_said(tmp_path: Path) -> None:
    task = LineTask(RunFolder(tmp_path), losses=(0.5, 0.6, 0.7, 0.8))
    loop(task, SETTINGS).run(resume=False)
    losses = written_out()[1]
    assert np.mean(losses[6:]) < np.mean(losses[:2])
    lines = [line for line in (tmp_path / "log.txt").read_text().splitlines() if "over-fitting" in line]
    assert len(lines) == 1
    assert "from epoch 1 to 4 the training loss fell" in lines[0]


def test_slow_reading_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that reading and learning alone move: of a step's half second, reading takes a half, later a tenth."""
    clock, load, task = SimpleNamespace(now=0.0), looping.load_batches, LineTask(RunFolder(tmp_path))
    learn = task.loss

    def read(images: Images, order: Order, *_: int, **options: bool) -> Iterator[Batch]:
        for step, batch in enumerate(load(images, order, 0, 1, **options)):
            clock.now += 0.25 if step < 2 else 0.05
            yield batch

    def learned(*arguments: Any) -> Tensor:
        clock.now += 0.25 if task.calls < 2 else 0.45
        return learn(*arguments)

    monkeypatch.setattr(looping, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(looping, "load_batches", read)
    monkeypatch.setattr(task, "loss", learned)
    loop(task, replace(SETTINGS, data=DataSettings(workers=1))).run(resume=False)
    lines = (tmp_path / "log.txt").read_text().splitlines()
    told = [index for index, line in enumerate(lines) if "waiting for images" in line]
    assert "epoch 1 of 4: " in lines[told[0]]
    assert f"train_loss {np.mean(written_out()[1][:2]):.4g}" in lines[told[0]]
    assert [lines[index].rpartition(" (")[2] for index in told] == [
        "8 images/s, 50% waiting for images)",
        *["8 images/s, 10% waiting for images)"] * 3,
    ]
    assert [index for index, line in enumerate(lines) if "raise data.workers" in line] == [told[0] + 1]


@pytest.mark.parametrize("save_every", [None, 1])
def test_a_loss_that_is_no_number_leaves_what_was_saved(save_every: int | None, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"not finite at step [45]: lower optimizer.learning_rate or set .*clip=1.0"
    ):
        train(tmp_path, replace(SETTINGS, save_every=save_every), fails={3: math.nan})
    saved = 3 if save_every else 2
    state = torch.load(tmp_path / "state.pt")
    torch.testing.assert_close(state["model"]["weight"].double(), written_out()[0][saved - 1])
    assert state["state"]["step"] == saved
    assert not (tmp_path / "epoch_002.pt").exists()
    assert len(metrics_of(tmp_path)) == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        MemoryError(),
    ],
)
def test_memory_that_runs_out_is_advice(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="out of memory with 2 images at once: raise accumulate, or set") as caught:
        train(tmp_path, replace(SETTINGS, accumulate=2), fails={1: error})
    assert all(key in str(caught.value) for key in ("precision=bf16", "checkpointing=true", "batch_size", "--resume"))


def test_another_error_is_itself(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        train(tmp_path, fails={1: RuntimeError("size mismatch")})


def test_each_epoch_is_told_and_may_end_the_run(tmp_path: Path) -> None:
    told: list[tuple[int, float]] = []

    def on_epoch(epoch: int, metrics: Any) -> None:
        told.append((epoch, metrics["val_loss"]))
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop(LineTask(RunFolder(tmp_path), losses=(0.5, 0.4, 0.3)), SETTINGS).run(resume=False, on_epoch=on_epoch)
    assert told == [(1, 0.5), (2, 0.4)]
    assert torch.load(tmp_path / "state.pt")["state"]["step"] == 4


@pytest.mark.parametrize("die_in", range(1, 8))
def test_a_run_resumed_after_any_step_ends_the_same(die_in: int, tmp_path: Path) -> None:
    settings = replace(SETTINGS, save_every=1)
    losses = (0.5, 0.4, 0.45, 0.3)
    whole = loop(LineTask(RunFolder(tmp_path / "whole"), losses), settings).run(resume=False)
    with pytest.raises(ZeroDivisionError):
        loop(LineTask(RunFolder(tmp_path / "cut"), losses, fails={die_in: ZeroDivisionError()}), settings).run(
            resume=False
        )
    task = LineTask(RunFolder(tmp_path / "cut"), losses[die_in // 2 :])
    assert loop(task, settings).run(resume=True) == whole
    assert task.calls == 8 - die_in
    for name in ("last.pt", "best.pt", "metrics.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_state_whose_groups_are_others_is_not_gone_on_from(tmp_path: Path) -> None:
    """Groups of one size would be taken, and moments of one weight given to another."""
    train(tmp_path)
    state = torch.load(tmp_path / "state.pt")
    state["state"]["step"] = 6
    state["optimizer"]["param_groups"][0]["name"] = "layer 0, no weight decay"
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(TrainingError, match="holds a run of an earlier version, which decays other weights"):
        loop(LineTask(RunFolder(tmp_path)), SETTINGS).run(resume=True)


def test_a_step_that_overflows_in_half_precision_is_skipped(tmp_path: Path) -> None:
    """As a scaler begins, with a scale that is too large: gradients of the first steps are infinite."""
    accelerator = launch(SETTINGS, tmp_path, all_train=True)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
    accelerator.native_amp, accelerator.state._mixed_precision = True, "fp16"
    task = LineTask(RunFolder(tmp_path))
    outcome = loop(task, SETTINGS, accelerator=accelerator).run(resume=False)
    skipped = round(20 - math.log2(accelerator.scaler.get_scale()))
    assert 2 <= skipped < 8
    assert outcome.history[0]["gradient_norm"] == 0
    torch.testing.assert_close(task.model.weight.double(), written_out(skipped=skipped)[0][-1], atol=2e-3, rtol=0)
    assert torch.load(tmp_path / "state.pt")["scaler"]["scale"] == accelerator.scaler.get_scale()


@pytest.mark.parametrize("writes", [True, False])
def test_progress_is_shown_inside_an_epoch_by_the_first_process_alone(
    writes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = on_terminal(monkeypatch)
    task = LineTask(RunFolder(tmp_path, writes=writes))
    assert loop(task, SETTINGS).run(resume=False).tells is writes
    drawn = terminal.getvalue()
    for epoch in range(1, SETTINGS.schedule.epochs + 1):
        assert (f"epoch {epoch} of {SETTINGS.schedule.epochs} " in drawn) is writes
    assert ("8/8" in drawn) is writes  # images of an epoch
    assert ("left" in drawn) is writes


def test_progress_of_a_resumed_epoch_begins_where_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(SETTINGS, save_every=1)
    with pytest.raises(ZeroDivisionError):
        loop(LineTask(RunFolder(tmp_path), fails={3: ZeroDivisionError()}), settings).run(resume=False)
    begun: list[tuple[int, int]] = []

    class Recorded(ShownProgress):
        def __init__(self, total: int, done: int = 0, **options: Any) -> None:
            begun.append((total, done))
            super().__init__(total, done, **options)

    monkeypatch.setattr(looping, "ShownProgress", Recorded)
    loop(LineTask(RunFolder(tmp_path)), settings).run(resume=True)
    assert begun[:2] == [(8, 4), (8, 0)]


def test_a_pipe_gets_no_progress(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train(tmp_path)
    out, err = capfd.readouterr()
    assert out == ""
    assert not {"\r", "\x1b"} & set(err)
    assert " left " not in err

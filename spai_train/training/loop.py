"""The loop that `pretrain` and `fit` share: steps, epochs, states; what is trained is a Task.

Every random number of a step follows from the recipe's seed and the step's number, and the order of the images too.
So a run that is killed at any step and resumed from the last state computes what it would have computed.
"""

import math
import os
import time
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from spai_runtime.cli.progress import ShownProgress
from spai_train.data.dataset import Batch, load_batches
from spai_train.data.order import Order, Plan
from spai_train.recipe import flatten
from spai_train.seeds import Use, seed_of
from spai_train.training.curves import draw_curves
from spai_train.training.failures import TrainingError, memory_advice
from spai_train.training.meters import Meters
from spai_train.training.optimizer import restore_optimizer
from spai_train.training.run import Metrics, RunFolder, State, damaged
from spai_train.training.schedule import Schedule
from spai_train.training.settings import TrainingSettings
from spai_train.training.stopping import EarlyStopping, gap
from spai_train.training.task import OnEpoch, Outcome, Task

LOADER_SHARE = 0.2  # of an epoch's time spent waiting for images, above which the user is told


class Loop:
    """:param optimizer: an optimizer of the parameters of `task.model`
    :param stopping: what watches the epochs, if anything does
    :param keep_all: whether the checkpoint of every epoch is kept
    """

    def __init__(
        self,
        task: Task,
        settings: TrainingSettings,
        plan: Plan,
        optimizer: torch.optim.Optimizer,
        folder: RunFolder,
        accelerator: Accelerator,
        stopping: EarlyStopping | None = None,
        *,
        keep_all: bool = False,
    ) -> None:
        self.task, self.settings, self.plan, self.optimizer = task, settings, plan, optimizer
        self.folder, self.accelerator, self.stopping, self.keep_all = folder, accelerator, stopping, keep_all
        self.schedule = Schedule(settings.scaled.schedule, plan.steps_per_epoch)
        self.step = 0
        self.history: list[Metrics] = []
        self.meters = Meters(accelerator)
        self.stopped = False

    def run(self, *, resume: bool, on_epoch: OnEpoch | None = None) -> Outcome:
        """Trains to the end, or until early stopping.

        :param on_epoch: called with each epoch's number and metrics; what it raises ends the run
        :raises TrainingError: the loss is no longer finite, or memory has run out
        """
        scaler = self._restore() if resume else None
        if not self._over:
            with memory_advice(self.plan.micro_batch):
                self._train(scaler, on_epoch)
        self.accelerator.end_training()
        return Outcome(self.history, self.history[self._best_epoch - 1], self.stopped, self.folder.writes)

    def _train(self, scaler: dict[str, Any] | None, on_epoch: OnEpoch | None) -> None:
        model, self.optimizer = self.accelerator.prepare(self.task.model, self.optimizer)
        if scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(scaler)
        self.accelerator.init_trackers("spai", config=flatten(self.settings))
        batches = self._loader()
        while not self._over:
            self._epoch(model, batches)
            if on_epoch:
                on_epoch(len(self.history), self.history[-1])

    def _epoch(self, model: nn.Module, batches: Iterator[Batch]) -> None:
        """Trains from wherever the epoch stands to its end."""
        started, waited, first = time.perf_counter(), 0.0, self.step
        model.train()
        with self._progress() as progress:
            while True:
                waited += self._step(model, batches)
                progress.advance(self.plan.batch_size)
                if self.step % self.settings.log_every == 0:
                    self._track()
                if self.step % self.plan.steps_per_epoch == 0:
                    break
                if self.settings.save_every and self.step % self.settings.save_every == 0:
                    self._save_state()
        seconds = time.perf_counter() - started
        pace = (self.step - first) * self.plan.batch_size / seconds
        self._end_epoch(f"{pace:.3g} images/s", waited / seconds)

    def _progress(self) -> ShownProgress:
        """The progress of the current epoch, which the process that also writes shows on its terminal."""
        epoch, steps = divmod(self.step, self.plan.steps_per_epoch)
        total, done = (count * self.plan.batch_size for count in (self.plan.steps_per_epoch, steps))
        return ShownProgress(total, done, what=f"epoch {epoch + 1} of {self.plan.epochs}", visible=self.folder.writes)

    def _step(self, model: nn.Module, batches: Iterator[Batch]) -> float:
        """Takes one step of the optimizer. :returns: seconds that it waited for images"""
        waited = 0.0
        self.schedule.set_rates(self.optimizer, self.step)
        for micro in range(self.plan.accumulate):
            asked = time.perf_counter()
            batch = self._received(next(batches))
            waited += time.perf_counter() - asked
            seed = seed_of(self.settings.seed, Use.STEP, self.step, self.accelerator.process_index, micro)
            torch.manual_seed(seed)
            with self.accelerator.accumulate(model):
                loss = self.task.loss(model, batch, seed)
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    self.meters.add(gradient_norm=self._clip())
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
            self.meters.add(train_loss=loss / self.plan.accumulate)
        self.step += 1
        self.meters.steps += 1
        return waited

    def _received(self, batch: Batch) -> Batch:
        """Moves the batch to the device."""
        self.meters.failed(batch.failures)
        device = self.accelerator.device
        views, labels = (part.to(device, non_blocking=True) for part in (batch.views, batch.labels))
        beside = None if batch.beside is None else batch.beside.to(device, non_blocking=True)
        return batch._replace(views=views, labels=labels, beside=beside)

    def _clip(self) -> Tensor:
        """The norm of all gradients, which are cut to `optimizer.clip` where that is set."""
        self.accelerator.unscale_gradients()
        learning = [part for part in self.task.model.parameters() if part.grad is not None]
        norm = nn.utils.get_total_norm([part.grad for part in learning if part.grad is not None])
        if self.settings.optimizer.clip is not None:
            nn.utils.clip_grads_with_norm_(learning, self.settings.optimizer.clip, norm)
        if self.accelerator.scaler is not None:  # which skips a step that overflows, and scales the next one less
            norm = norm.nan_to_num(0, 0, 0)
        return norm

    def _end_epoch(self, pace: str, loader_share: float) -> None:
        epoch = self.step // self.plan.steps_per_epoch
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        unreadable = self.meters.all_unreadable()
        metrics: Metrics = {"epoch": epoch, "step": self.step, "learning_rate": rate, **self._means()}
        metrics |= {"unreadable": len(unreadable), **self.task.validate()}
        self.history.append(metrics)
        self.meters = Meters(self.accelerator)
        self._save_epoch(epoch, metrics)
        self.folder.log_skipped(unreadable)
        self._tell(metrics, pace, loader_share)

    def _save_epoch(self, epoch: int, metrics: Metrics) -> None:
        """Saves checkpoints and curves, and the state last: what a kill cuts short is done again."""
        improved = False
        if self.stopping:
            verdict = self.stopping.update(epoch, metrics)
            improved, self.stopped = verdict.improved, verdict.stop
        names = {"last": True, "best": improved, f"epoch_{epoch:03d}": self.keep_all}
        for name in (name for name, wanted in names.items() if wanted):
            self.task.save(name)
        self.folder.add_metrics(metrics)
        self.folder.replace("curves.png", lambda path: draw_curves(path, self.history))
        self._save_state()

    def _tell(self, metrics: Metrics, pace: str, loader_share: float) -> None:
        values = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items() if name not in ("epoch", "step"))
        self.folder.log(
            f"epoch {metrics['epoch']} of {self.plan.epochs}: {values} ({pace}, {loader_share:.0%} waiting for images)"
        )
        if loader_share > LOADER_SHARE and self.settings.data.workers:
            self.folder.log("images are read more slowly than they are learned from: raise data.workers")
        if self.stopping:
            if warning := gap([(int(entry["epoch"]), entry) for entry in self.history]):
                self.folder.log(warning)
            if self.stopped:
                self.folder.log(f"stopped early: {self.stopping.settings.metric} was best in epoch {self._best_epoch}")
        self.accelerator.log(metrics, step=self.step)

    def _track(self) -> None:
        self.accelerator.log({f"step/{name}": value for name, value in self._means().items()}, step=self.step)

    def _means(self) -> Metrics:
        """:raises TrainingError: the loss is not finite"""
        means = self.meters.means()
        if not all(map(math.isfinite, means.values())):
            raise TrainingError(
                f"the loss is not finite at step {self.step}: lower optimizer.learning_rate or set optimizer.clip=1.0; "
                "what was saved before is whole"
            )
        return means

    def _restore(self) -> dict[str, Any] | None:
        """Takes up the saved state, if there is one. :returns: the state of the gradient scaler"""
        restored = self.folder.restore()
        if restored is None:
            return None
        state, tensors = restored
        self.step, self.history, self.stopped = state.step, state.history, state.stopped
        try:
            self.meters.restore(state.totals)
            self.task.model.load_state_dict(tensors["model"])
            restore_optimizer(self.optimizer, tensors["optimizer"], self.folder.path)
            if self.stopping:
                self.stopping.restore(state.stopping)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise damaged(self.folder.path / "state.pt") from error
        self.folder.log(f"resumed at step {self.step} of {self.plan.steps}")
        scaler: dict[str, Any] | None = tensors["scaler"]
        return scaler

    def _save_state(self) -> None:
        self._means()  # nothing that is not finite is saved
        scaler = self.accelerator.scaler
        tensors = {
            "model": self.task.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
        }
        stopping = self.stopping.state() if self.stopping else {}
        state = State(self.step, self.meters.state(), self.history, stopping, self.stopped)
        self.folder.save_state(state, tensors)
        self.accelerator.wait_for_everyone()

    def _loader(self) -> Iterator[Batch]:
        order = Order(self.plan, self.settings.seed, self.step, self.accelerator.process_index)
        data = self.settings.data
        pin = self.accelerator.device.type == "cuda"
        workers = min(data.workers, os.cpu_count() or 1)
        return load_batches(self.task.images, order, workers, data.prefetch, pin=pin)

    @property
    def _best_epoch(self) -> int:
        return (self.stopping.best_epoch if self.stopping else None) or len(self.history)

    @property
    def _over(self) -> bool:
        return self.stopped or self.step >= self.plan.steps

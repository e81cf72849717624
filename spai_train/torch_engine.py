"""A model in torch behind the runtime's Detector: training is validated by the very pipeline that deployment runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spai_runtime.detector import Detector
from spai_runtime.engines.base import DeviceMemoryError, HostEngine
from spai_runtime.manifest import Threshold
from spai_train.checkpoint import Card, load_checkpoint
from spai_train.detectors import find
from spai_train.detectors.describe import describe
from spai_train.detectors.spec import DetectorModel
from spai_train.memory import BatchLimit, out_of_memory

CPU_BATCH_SIZE = 4  # views: larger batches leave the cache
CUDA_BATCH_SIZE = 64


class TorchEngine(HostEngine):
    """A module as the runtime's Engine: arrays in, arrays out.

    :param module: takes one tensor, gives one or a tuple; it is run in the mode that it is in
    :param precision: `torch.float32`, or the type that autocast computes in
    :param limit: the limit of a batch; None begins with what suits the device
    """

    def __init__(
        self,
        module: nn.Module,
        device: str,
        precision: torch.dtype = torch.float32,
        limit: BatchLimit | None = None,
    ) -> None:
        self.device, self._limit = device, limit or BatchLimit()
        suits = CPU_BATCH_SIZE if torch.device(device).type == "cpu" else CUDA_BATCH_SIZE
        self.batch_size = self._limit.views or suits
        self.label = f"torch {torch.__version__}, {device}"
        self._module, self._precision = module, precision

    def run(self, batch: NDArray[Any]) -> list[NDArray[Any]]:
        """Runs a batch; where memory runs out, it is halved until it fits, and later batches are no larger.

        :returns: float32, whatever the precision is
        :raises DeviceMemoryError: not even a batch of one fits
        """
        parts: list[list[NDArray[Any]]] = []
        begin = 0
        while begin < len(batch):
            part = batch[begin : begin + self._limit.of(len(batch) - begin)]
            outputs = self._attempt(part)
            if outputs is None:
                self._limit.lower(len(part))
            else:
                parts.append(outputs)
                begin += len(part)
        self._limit.say(self.device)
        return parts[0] if len(parts) == 1 else [np.concatenate(column) for column in zip(*parts, strict=True)]

    def _attempt(self, part: NDArray[Any]) -> list[NDArray[Any]] | None:
        """Tries a batch; gives None where memory runs out. It does not retry: memory is free only once it has returned.

        :raises DeviceMemoryError: memory runs out for a batch of one
        """
        try:
            return self._compute(part)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if len(part) == 1:
                raise DeviceMemoryError(f"{self.device} has too little memory left for a batch of 1") from error
        if torch.device(self.device).type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _compute(self, batch: NDArray[Any]) -> list[NDArray[Any]]:
        tensor = torch.from_numpy(np.ascontiguousarray(batch)).to(self.device)
        autocast = torch.autocast(
            torch.device(self.device).type, self._precision, enabled=self._precision != torch.float32
        )
        with torch.inference_mode(), autocast:
            outputs = self._module(tensor)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return [output.float().cpu().numpy() for output in outputs]

    def close(self) -> None:
        """Does nothing: the module holds all there is."""


def as_detector(
    model: DetectorModel,
    card: Card | None = None,
    device: str = "cpu",
    precision: torch.dtype = torch.float32,
    limit: BatchLimit | None = None,
) -> Detector:
    """Makes a detector of a model that is on `device`; put the model in eval mode first.

    :param card: what it says of itself; None makes a card with the name of the detector
    :param limit: the limit of the encoder's batches
    """
    spec = find(model.detector)
    manifest = describe(spec, model.config, card or Card(spec.name))
    encoder = TorchEngine(model.encoder, device, precision, limit)
    head = TorchEngine(model.head, device, precision)
    return Detector(manifest, encoder, head, manifest.threshold)


def load_detector(
    path: Path,
    device: str = "auto",
    threshold: float | None = None,
    detector: str | None = None,
    tower: Path | None = None,
) -> Detector:
    """Loads a checkpoint as a detector, without an export.

    :param device: `auto` takes the first GPU, else the CPU
    :param detector, tower: see load_checkpoint
    :raises CheckpointError: see load_checkpoint
    """
    checkpoint, device = load_checkpoint(path, detector, tower), find_device(device)
    loaded = as_detector(checkpoint.model().to(device), checkpoint.card, device)
    if threshold is not None:
        loaded.threshold = Threshold.given(threshold)
    return loaded


def find_device(device: str) -> str:
    """`auto` → the first GPU, else the CPU; any other as it is."""
    if device != "auto":
        return device
    return "cuda:0" if torch.cuda.is_available() else "cpu"


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A context in eval mode; at its end, the module gets its mode back."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)

"""A detector of one's own without training a network: a linear layer fitted to a frozen encoder's features."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spai_runtime.files.atomic import atomic_write
from spai_train.checkpoint import save_checkpoint
from spai_train.data.rows import DataSettings, read_splits
from spai_train.data.stores import open_store
from spai_train.data.table import GENERATED, REAL, Row
from spai_train.evaluation.embedding import Embedded
from spai_train.evaluation.metrics import auc
from spai_train.probing.extraction import Extracted, Reading, extract
from spai_train.probing.line import Examples, Line, ProbeError, fit_line
from spai_train.probing.options import Encoder, Fitting
from spai_train.probing.start import fitted, start
from spai_train.torch_engine import find_device

CHECKPOINT, RECORD = "probe.safetensors", "probe.json"


@dataclass(frozen=True)
class Validation:
    """How well the line tells the validation images apart, which chose its penalty.

    :param accuracy: the accuracy at the threshold 0.5
    """

    auc: float
    accuracy: float


@dataclass(frozen=True)
class Probed:
    """What a probe has found.

    :param name: the detector's name
    :param encoder: the encoder, in words
    :param training, validation: the images that could be read
    """

    checkpoint: Path
    name: str
    encoder: str
    extracted: Extracted
    training: Examples
    validation: Examples
    line: Line
    measured: Validation

    @property
    def skipped(self) -> list[Embedded]:
        """The images that could not be read."""
        return self.extracted.skipped


def probe(
    data: DataSettings, encoder: Encoder, fitting: Fitting, reading: Reading, output: Path, name: str = ""
) -> Probed:
    """Fits a linear layer to the features of an encoder, and writes CHECKPOINT, RECORD and the file of features.

    :param reading: its device may be `auto`: the first GPU, else the CPU
    :param name: the detector's name; "" takes that of the checkpoint that it starts from, else that of its row
    :raises UserError: tables, weights or images cannot be used
    :raises OSError: `output` cannot be written
    """
    training, validation = read_splits(data)
    training = drawn(training, fitting)
    model, card, described = start(encoder, fitting.seed, training, open_store(reading.store))
    reading = replace(reading, device=find_device(reading.device))
    extracted = extract(model.to(reading.device), [*training, *validation], output, reading)
    examples, held_out = extracted.of(training, data.train_split), extracted.of(validation, data.validation_split)
    line = fit_line(fitting.classifier, examples, held_out, fitting.seed)
    measured = _measured(fitted(model, line, held_out.features), held_out)
    source, positive = _source(fitting, examples), fitting.positive or card.positive
    card = replace(card, name=name or card.name, threshold=0.5, threshold_source=source, positive=positive)
    with atomic_write(output / CHECKPOINT) as part:
        save_checkpoint(part, model, card)
    probed = Probed(output / CHECKPOINT, card.name, described, extracted, examples, held_out, line, measured)
    with atomic_write(output / RECORD) as part:
        part.write_text(json.dumps(_record(probed, fitting), indent=2) + "\n", encoding="utf-8")
    return probed


def drawn(rows: Sequence[Row], fitting: Fitting) -> list[Row]:
    """Draws so many rows of each class, in the order of the table; where no number is asked for, it takes all.

    :raises ProbeError: a class has fewer
    """
    if fitting.pairs is None:
        return list(rows)
    order = np.random.default_rng(fitting.seed).permutation(len(rows)).tolist()
    real, generated = ([index for index in order if rows[index].label == label] for label in (REAL, GENERATED))
    if min(len(real), len(generated)) < fitting.pairs:
        raise ProbeError(
            f"--pairs {fitting.pairs} takes so many images of each class, and there are {len(real)} real and "
            f"{len(generated)} AI-generated ones to train on"
        )
    return [rows[index] for index in sorted(real[: fitting.pairs] + generated[: fitting.pairs])]


def _measured(logits: "np.ndarray[tuple[int], np.dtype[np.float32]]", examples: Examples) -> Validation:
    generated = examples.labels == GENERATED
    return Validation(auc(logits[~generated], logits[generated]), float(np.mean((logits > 0) == generated)))


def _source(fitting: Fitting, training: Examples) -> str:
    """Says where the threshold 0.5 comes from."""
    classifier = f"{fitting.classifier.described} on {training}"
    return f"not calibrated: the middle of a {classifier}; `spai-train evaluate --calibrate` finds one"


def _record(probed: Probed, fitting: Fitting) -> dict[str, object]:
    """The content of RECORD."""
    images = {"train": probed.training.counts, "val": probed.validation.counts, "skipped": len(probed.skipped)}
    about = {"name": probed.name, "encoder": probed.encoder, "images": images, "classifier": fitting.classifier}
    found = {"C": probed.line.penalty, "val_log_loss": probed.line.loss}
    measured = {"val_auc": probed.measured.auc, "val_accuracy": probed.measured.accuracy}
    return {**about, "pairs": fitting.pairs, "seed": fitting.seed, **found, **measured}

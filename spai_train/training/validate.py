"""Validation and tests between epochs: whole images through the runtime's pipeline, as deployment scores them."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from sklearn.metrics import average_precision_score, roc_auc_score

from spai_runtime.cli.progress import shown
from spai_train.data.dataset import Failure
from spai_train.data.stores import Store
from spai_train.data.table import Row, TableError
from spai_train.detectors.spec import DetectorModel
from spai_train.evaluation.scored import score_rows
from spai_train.memory import BatchLimit
from spai_train.torch_engine import as_detector, evaluating
from spai_train.training.launch import autocast_dtype
from spai_train.training.meters import gather
from spai_train.training.run import Metrics


class Validation(NamedTuple):
    """What the images of a table say of a model.

    :param metrics: val_loss, val_auc, val_ap, val_accuracy, and val_unreadable, how many images could not be read
    :param unreadable: the images that could not be read: name → why
    """

    metrics: Metrics
    unreadable: dict[str, str]


def validate(
    model: DetectorModel,
    rows: Sequence[Row],
    store: Store,
    accelerator: Accelerator,
    limit: BatchLimit | None = None,
    name: str = "val",
) -> Validation:
    """Measures loss, AUC, AP and accuracy at 0.5 on the images; each process scores its share.

    AUC and AP are left out where only one class could be read.

    :param limit: the limit of the views that the encoder is given at once
    :param name: the beginning of the names of the metrics
    :raises TableError: no image could be read
    """
    mine = rows[accelerator.process_index :: accelerator.num_processes]
    pairs: list[tuple[float, int]] = []
    failures: list[Failure] = []
    with evaluating(model):
        parts = gather(accelerator, _scored(model, mine, store, accelerator, limit, name))
    for scored, failed in parts:
        pairs += scored
        failures += failed
    if not pairs:
        first, error = failures[0]
        whose = "validation" if name == "val" else name
        raise TableError(f"none of the {len(rows)} {whose} images can be read; {first}: {error}")
    logits, labels = np.array(pairs, np.float64).T
    losses = np.logaddexp(0, np.where(labels == 1, -logits, logits))  # binary cross-entropy of a logit
    metrics = {"loss": float(losses.mean())}
    if len(np.unique(labels)) == 2:
        metrics["auc"] = float(roc_auc_score(labels, logits))
        metrics["ap"] = float(average_precision_score(labels, logits))
    metrics["accuracy"] = float(np.mean((logits > 0) == (labels == 1)))
    metrics["unreadable"] = len(failures)
    return Validation({f"{name}_{metric}": value for metric, value in metrics.items()}, dict(failures))


def _scored(
    model: DetectorModel,
    rows: Sequence[Row],
    store: Store,
    accelerator: Accelerator,
    limit: BatchLimit | None,
    name: str,
) -> tuple[list[tuple[float, int]], list[Failure]]:
    """The logit and label of each image that can be read, and the other images; progress is shown on a terminal."""
    device, precision = str(accelerator.device), autocast_dtype(accelerator)
    detector = as_detector(model, device=device, precision=precision, limit=limit)
    random_state = torch.random.get_rng_state()
    watch = partial(shown, total=len(rows), what=f"scoring {name}", visible=accelerator.is_main_process)
    (table,) = score_rows([detector], rows, store=store, watch=watch)
    assert torch.equal(random_state, torch.random.get_rng_state()), "validation draws nothing"
    found = list(zip(rows, table.logit.tolist(), table.errors, strict=True))
    pairs = [(logit, row.label) for row, logit, error in found if not error]
    return pairs, [Failure(row.name, error) for row, _, error in found if error]

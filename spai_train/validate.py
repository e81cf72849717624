"""Validation between epochs: whole images through the runtime's pipeline, as deployment scores them."""

from collections.abc import Sequence

import numpy as np
import torch
from accelerate import Accelerator
from sklearn.metrics import average_precision_score, roc_auc_score

from spai_runtime.images import Picture
from spai_runtime.pipeline import score_items
from spai_runtime.sources import Item
from spai_train.data.stores import Store
from spai_train.data.table import Row
from spai_train.launch import autocast_dtype
from spai_train.meters import gather
from spai_train.models.spai import SPAI
from spai_train.run import Metrics
from spai_train.torch_engine import as_detector, evaluating


def validate(model: SPAI, rows: Sequence[Row], store: Store, accelerator: Accelerator) -> Metrics:
    """Loss, AUC, AP and accuracy at 0.5 of the images; each process scores its share.

    AUC and AP are left out where only one class could be read.

    :returns: val_loss, val_auc, val_ap, val_accuracy, and val_unreadable, how many images could not be read
    """
    mine = rows[accelerator.process_index :: accelerator.num_processes]
    with evaluating(model):
        scored = _logits(model, mine, store, accelerator)
    pairs = [pair for part in gather(accelerator, scored) for pair in part]
    if not pairs:
        return {"val_unreadable": len(rows)}
    logits, labels = np.array(pairs, np.float64).T
    losses = np.logaddexp(0, np.where(labels == 1, -logits, logits))  # binary cross-entropy of a logit
    metrics = {"val_loss": float(losses.mean())}
    if len(np.unique(labels)) == 2:
        metrics["val_auc"] = float(roc_auc_score(labels, logits))
        metrics["val_ap"] = float(average_precision_score(labels, logits))
    metrics["val_accuracy"] = float(np.mean((logits > 0) == (labels == 1)))
    return metrics | {"val_unreadable": len(rows) - len(pairs)}


def _logits(model: SPAI, rows: Sequence[Row], store: Store, accelerator: Accelerator) -> list[tuple[float, int]]:
    """Logit and label of each image that can be read."""
    detector = as_detector(model, device=str(accelerator.device), precision=autocast_dtype(accelerator))
    items = [Item(row.path, str(index)) for index, row in enumerate(rows)]
    random_state = torch.random.get_rng_state()
    results = score_items(detector, items, opened=lambda item: Picture.open(store.read(rows[int(item.name)])))
    scored = [(result.score.logit, row.label) for row, result in zip(rows, results, strict=True) if result.score]
    assert torch.equal(random_state, torch.random.get_rng_state()), "validation draws nothing"
    return scored

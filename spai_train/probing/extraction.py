"""Labelled images → the features of those that can be read, from the file or else from the encoder."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spai_runtime.files.sources import printable
from spai_train.data.stores import open_store
from spai_train.data.table import Row, TableError, check_classes
from spai_train.detectors.spec import DetectorModel
from spai_train.evaluation.embedding import Embedded, embeddings
from spai_train.probing.features import Features, encoder_key, image_keys
from spai_train.probing.line import Examples


@dataclass(frozen=True)
class Reading:
    """How images are read and encoded.

    :param store: a `.lmdb`, a `.tar` or a folder of them that holds the images; None reads files
    :param batch_size: views that the encoder is given at once; None takes what suits the device
    :param workers: decoding threads
    """

    device: str
    store: Path | None = None
    batch_size: int | None = None
    workers: int | None = None


@dataclass(frozen=True)
class Extracted:
    """The images of all splits that can be read, with their features.

    :param features: (B, D), a row for each of `rows`
    :param skipped: images that cannot be read, and why
    :param computed: how many images went through the encoder now; the others were in the file
    :param path: the file of features
    """

    rows: list[Row]
    features: NDArray[np.float32] = field(repr=False)
    skipped: list[Embedded]
    computed: int
    path: Path

    def of(self, rows: Sequence[Row], split: str) -> Examples:
        """The images of a split.

        :raises TableError: no image of one class, or of both, can be read
        """
        wanted = {id(row) for row in rows}
        places = [index for index, row in enumerate(self.rows) if id(row) in wanted]
        if not places:
            first = next(one for one in self.skipped if id(one.row) in wanted)
            why = f"{printable(first.row.name)} for one: {first.error}"
            raise TableError(
                f"none of the {len(rows)} images of the split {split} can be read, {why}; --root names their folder"
            )
        check_classes([self.rows[index] for index in places], f"what can be read of the split {split}")
        return Examples(self.features[places], np.array([self.rows[index].label for index in places], np.int64))


def extract(model: DetectorModel, rows: Sequence[Row], folder: Path, reading: Reading) -> Extracted:
    """Computes features of each image; `folder` keeps a file for each encoder, so an interrupted call is continued.

    :param model: the model, in eval mode and on the device
    :raises OutputError: another process writes the file
    :raises OSError: it cannot be written
    """
    encoder = encoder_key(model)
    path, keys = folder / f"features-{encoder}.npy", image_keys(encoder, rows, reading.store)
    store = open_store(reading.store)
    with Features(path, model.config.features, keys) as file:
        missing = [(row, key) for row, key in zip(rows, keys, strict=True) if key not in file]
        found = embeddings(
            model,
            [row for row, _ in missing],
            reading.device,
            store=store,
            batch_size=reading.batch_size,
            workers=reading.workers,
        )
        skipped = []
        for one, (_, key) in zip(found, missing, strict=True):
            if one.embedding is None:
                skipped.append(one)
            else:
                file.put(key, one.embedding)
        there = [index for index, key in enumerate(keys) if key in file]
        features = file.take([keys[index] for index in there])
    return Extracted([rows[index] for index in there], features, skipped, len(missing) - len(skipped), path)

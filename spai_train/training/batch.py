"""How many images a step has: as many as were asked for, or else as many as suit the data."""

from collections.abc import Collection
from dataclasses import replace

from spai_train.data.order import check_shares
from spai_train.training.run import RunFolder, Settings

EPOCH_STEPS = 8  # at least, of an epoch: with fewer, a schedule by epochs has hardly a step to each of its rates


def begin(
    section: str,
    settings: Settings,
    folder: RunFolder,
    processes: int,
    chosen: Collection[str] | None,
    *,
    resume: bool,
) -> tuple[Settings, bool]:
    """The settings of a run before its data are read; first they are held against those in the folder.

    :param section: the section of the recipe
    :param chosen: keys that somebody has chosen; None means all
    :returns: settings, whose `batch_size` is that of the run that is resumed where nobody has chosen another, and
        whether it is still to follow the data
    :raises UserError: see `RunFolder.check`; or micro-batches would not be of one size
    """
    is_open = chosen is not None and "batch_size" not in chosen
    before = folder.begun_with(section, settings) if resume and is_open else None
    if before:
        settings, is_open = replace(settings, batch_size=before.batch_size), False
    folder.check(section, settings, resume=resume)
    if not is_open:
        check_shares(settings.batch_size, settings.accumulate, processes)
    return settings, is_open


def following(settings: Settings, images: int, processes: int) -> tuple[Settings, tuple[str, ...]]:
    """Settings whose `batch_size` leaves EPOCH_STEPS steps an epoch, and can be shared by processes and micro-batches.

    :param images: the number of training images
    :returns: the settings, and a line that says so where `batch_size` has changed
    """
    unit, before = settings.accumulate * processes, settings.batch_size
    size = max(1, min(before, images // EPOCH_STEPS) // unit) * unit
    if size == before:
        return settings, ()
    note = f"batch_size is {size} and not {before}, to suit {images} training images; --batch-size sets another"
    return replace(settings, batch_size=size), (note,)

"""The process behind `spai-run --detector NAME`: it exports a published checkpoint into the user's cache.

`spai_runtime.zoo` starts it where the export is missing, and reads the exported directory when it has ended.
"""

import logging
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

import msgspec

from spai_export.choices import Settings
from spai_runtime.child.message import Message, failure, read, write
from spai_runtime.child.process import pipes
from spai_runtime.cli.commands import say
from spai_runtime.errors import OutputError, UserError
from spai_runtime.files.cache import CACHE
from spai_runtime.files.locked import open_locked
from spai_runtime.install import install
from spai_runtime.zoo import Wanted, directory, is_complete
from spai_train.published import Entry
from spai_train.zoo import find


def serve() -> None:
    """Reads what is wanted from stdin, and answers on stdout with the folder, or with what is wrong."""
    signal.signal(signal.SIGTERM, _interrupted)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # else huggingface_hub says what is installed here
    requests, answers = pipes()
    try:
        answer = Message(str(make(msgspec.convert(read(requests).body, Wanted))))
    except KeyboardInterrupt:
        sys.exit(1)
    except Exception as error:
        answer = failure(error)
    with suppress(OSError):  # the parent is gone, and the export is there all the same
        write(answers, answer)


def make(wanted: Wanted) -> Path:
    """Gets a published checkpoint and exports it in fp32, unless another process has done so meanwhile.

    :returns: the exported directory
    :raises UserError: it is not in the zoo or not on the hub, its terms are not accepted, it cannot be had, something
        is not installed, or the cache cannot be written
    """
    entry = find(wanted.name)
    _check(entry, wanted)
    folder = directory(entry.name)
    with _alone(folder):
        if not is_complete(folder):
            shutil.rmtree(folder, ignore_errors=True)  # what a process that was killed has left
            _export(entry, folder, _Progress(wanted))
    return folder


def _check(entry: Entry, wanted: Wanted) -> None:
    if not entry.on_hub:
        why = "is packed into an archive" if entry.unpacked else "does not lie on the Hugging Face hub"
        raise UserError(f"{entry.name} {why}: {entry.instructions}")
    if entry.non_commercial and not wanted.accept_licence:
        raise UserError(
            f"the weights of {entry.name} are under {entry.file.licence}, which allows no commercial use: give "
            f"--accept-licence if you keep to that, or look at {entry.file.source}"
        )


def _export(entry: Entry, folder: Path, progress: "_Progress") -> None:
    try:  # before anything is downloaded for nothing
        from spai_train.hub import fetch  # noqa: PLC0415, I001  an extra; torch, which takes longest, comes last
        from spai_export import directory as exported  # noqa: PLC0415
        from spai_export.source import Source  # noqa: PLC0415
        from spai_train.checkpoint import load_checkpoint  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed, and exporting {entry.name} needs it, once: {install('export')}"
        ) from error
    progress.say(f"{entry.name}: getting {entry.file.described}")
    fetched = fetch(entry.file)
    progress.say(f"{entry.name}: exporting it, once, into {folder}")
    checkpoint = load_checkpoint(fetched.path, entry.detector)
    card = replace(checkpoint.card, name=entry.name)
    published = {"repo": entry.file.repo, "commit": fetched.commit, "file": entry.file.name}
    licences = {"code": entry.code_licence, "weights": entry.file.licence}
    origin = {"published": published, "licences": licences}
    exported.write(Source(replace(checkpoint, card=card), Settings()), folder, origin)


class _Progress:
    """Progress on a terminal. huggingface_hub draws its bar there too; its log is not for the user."""

    def __init__(self, wanted: Wanted) -> None:
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        self._shown = sys.stderr.isatty() and not wanted.quiet
        if wanted.quiet:
            os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

    def say(self, sentence: str) -> None:
        if self._shown:
            say(f"spai-run: {sentence}")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """A context that one process has at a time for a detector; others wait while it exports."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = open_locked(folder.with_name(f"{folder.name}.lock"), wait=True)
    except (OSError, OutputError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"cannot write {folder.parent}: {reason}; set {CACHE} to a folder that can be written"
        ) from error
    with lock:
        yield


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what was begun is removed in peace
    raise KeyboardInterrupt

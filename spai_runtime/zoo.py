"""Published detectors by name: `spai-run --detector NAME`.

Their exports are kept in the user's cache. If one does not exist yet, a separate process makes it, `spai_export.zoo`,
since that needs torch. Nothing of training or export is imported here, and an existing export runs without torch.
"""

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from spai_runtime.child.message import Message, raised, read, write
from spai_runtime.errors import UserError
from spai_runtime.files.cache import cache_folder
from spai_runtime.manifest import FILE_NAME

# Ctrl-C goes to both, and the parent ends its child.
_START = "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.path[:] = sys.argv[1:]"
_START += "; from spai_export.zoo import serve; serve()"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*\Z")
_PACKAGES = ("spai_train", "spai_export")  # beside this one, in a checkout as in a wheel
_GRACE = 10.0  # seconds that an interrupted export may take to remove what it has begun


class Wanted(msgspec.Struct, frozen=True):
    """A request for the export of a detector.

    :param name: the detector's name in the zoo
    :param accept_licence: whether the user accepts the terms of the weights
    :param quiet: whether to show no progress
    """

    name: str
    accept_licence: bool = False
    quiet: bool = False


def directory(name: str) -> Path:
    """The path of a published detector's export, which may not be made yet.

    It belongs to this toolkit alone. A toolkit with other code might read the checkpoint or write the graph in another
    way, or have another commit or sha256 for the checkpoint, so it has another folder.
    """
    try:
        return cache_folder() / "zoo" / _toolkit() / name
    except RuntimeError as error:
        raise UserError(f"there is no folder for exported detectors: set SPAI_CACHE to one ({error})") from error


def is_complete(folder: Path) -> bool:
    """Whether an export is complete, which it is when its last file exists."""
    return (folder / FILE_NAME).is_file()


def exported(wanted: Wanted) -> Path:
    """The directory of a published detector; the export is made if it does not exist.

    :raises UserError: no detector has that name, it cannot be had, or its terms are not accepted
    """
    if _NAME.match(wanted.name) and is_complete(folder := directory(wanted.name)):
        return folder
    answer = _ask(wanted)
    if answer.error:
        raise raised(answer) or UserError(f"{wanted.name} could not be exported: {answer.body}")
    return Path(answer.body)


def _ask(wanted: Wanted) -> Message:
    """Start the process, whose stderr is ours, and wait for its answer: the folder, or what is wrong."""
    command = [sys.executable, "-P", "-c", _START, *sys.path]  # the modules are those that we import
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    except OSError as error:
        raise UserError(f"no process could be started to export {wanted.name}: {error.strerror}") from error
    with process:
        try:
            write(cast("BinaryIO", process.stdin), Message(msgspec.to_builtins(wanted)))
            return read(cast("BinaryIO", process.stdout))
        except (OSError, EOFError, ValueError) as error:
            code = process.wait()
            raise UserError(f"the process that exports {wanted.name} ended with code {code}; run it again") from error
        except BaseException:
            _end(process)
            raise


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()


def _toolkit() -> str:
    """A digest of the code that makes an export, which differs if the code differs."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(path for package in _PACKAGES for path in (root / package).rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]

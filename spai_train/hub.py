"""Published files on the Hugging Face hub, through its own library: its cache, its login, its offline mode.

`HF_HOME`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_TOKEN` and whatever else it reads from the environment count.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from huggingface_hub import constants, errors, hf_hub_download

from spai_runtime.errors import UserError
from spai_runtime.files.digest import sha256_of
from spai_runtime.text import excerpt
from spai_train.published import PublishedFile

_HTTP_ERROR: type[BaseException] = errors.HfHubHTTPError.__bases__[0]  # httpx's, whose package has one of several names


@dataclass(frozen=True)
class Fetched:
    """A file in the cache of huggingface_hub.

    :param commit: the commit of its repository in which it was found
    """

    path: Path
    commit: str


def fetch(file: PublishedFile) -> Fetched:
    """Gets a file, unless it is in the cache already, and checks that it is the published one.

    :param file: one that lies on the hub
    :raises UserError: it cannot be had, or another file has come, which is then removed from the cache
    """
    with _in_one_sentence(file):
        path = Path(hf_hub_download(file.repo, file.name, revision=file.revision))
        _check(file, path)
    depth = len(PurePosixPath(file.name).parts)  # below snapshots/<commit>/
    return Fetched(path, path.parents[depth - 1].name)


def _check(file: PublishedFile, path: Path) -> None:
    """Checks the size, which costs nothing, and then the sha256."""
    if file.size is not None and (size := path.stat().st_size) != file.size:
        _refuse(file, path, f"{size:,} bytes", f"{file.size:,}")
    if file.sha256 is not None and (sha256 := sha256_of(path)) != file.sha256:
        _refuse(file, path, f"sha256 {sha256}", file.sha256)


def _refuse(file: PublishedFile, path: Path, found: str, published: str) -> None:
    content = path.resolve()  # of which the cache's own name is a link
    path.unlink()
    content.unlink(missing_ok=True)
    raise UserError(
        f"{file.name} of {file.repo} has {found}, and the published one {published}; it was removed: run it again, and "
        f"if that does not help, look at {file.source}"
    )


@contextmanager
def _in_one_sentence(file: PublishedFile) -> Iterator[None]:
    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        raise UserError(_unreachable(file, error.__cause__)) from error
    except (errors.HfHubHTTPError, errors.EntryNotFoundError) as error:
        raise UserError(_refused(file, error)) from error
    except (OSError, _HTTP_ERROR) as error:
        reason = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"{file.name} of {file.repo} did not arrive: {excerpt(reason)}; run it again") from error


def _unreachable(file: PublishedFile, cause: BaseException | None) -> str:
    """The sentence for a file that neither the cache nor the hub has given."""
    if constants.HF_HUB_OFFLINE:
        where = f"in the cache of huggingface_hub ({constants.HF_HUB_CACHE})"
        return f"{file.name} of {file.repo} is not {where}, and HF_HUB_OFFLINE is set: run it once without"
    if isinstance(cause, errors.HfHubHTTPError):
        return _refused(file, cause)
    why = excerpt(str(cause).partition("\n")[0]) if cause else "there is no connection"
    return (
        f"cannot get {file.name} from {constants.ENDPOINT}: {why}; check the connection, and HF_ENDPOINT if it is set"
    )


def _refused(file: PublishedFile, error: Exception) -> str:
    """The sentence for an answer of the hub that is not the file."""
    log_in = "log in with `hf auth login`"
    if isinstance(error, errors.GatedRepoError):
        return f"{file.repo} is gated: accept its terms at {file.source}, {log_in}, and run it again"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{constants.ENDPOINT} has no {file.repo}, or it is private: look at {file.source}, or {log_in}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{file.repo} has no revision {file.revision} any more: look at {file.source}, and upgrade spai-toolkit"
    if isinstance(error, errors.EntryNotFoundError):
        return f"{file.repo} has no {file.name} at {file.revision}: look at {file.source}, and upgrade spai-toolkit"
    assert isinstance(error, errors.HfHubHTTPError)
    status = error.response.status_code
    return f"{constants.ENDPOINT} answers {status} for {file.name} of {file.repo}: look at {file.source}"

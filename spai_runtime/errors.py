"""The one kind of error that a user meets: a sentence that says what is wrong and what to do."""

_LONGEST_EXCERPT = 300  # characters


class UserError(Exception):
    """Input, file or environment that cannot be used; its message is one line, meant for the user."""


class RefusedError(UserError):
    """A file that was not opened because it could do harm: it asks for code, or for other files of the machine, or it
    is not the file that it should be.

    A command that ends with it has an exit code of its own.
    """


class ImageError(UserError):
    """A file that is not an image, or one that cannot be decoded; in a run it becomes that image's row."""


class SourceError(UserError):
    """An INPUT that names nothing, or a list that cannot be read."""


class ManifestError(UserError):
    """A detector.json that is missing, malformed, or of a newer schema."""


class EngineError(UserError):
    """A graph that is missing, refused, or does not do what detector.json says; or a back end that is not installed."""


class GraphRefusedError(EngineError, RefusedError):
    """A graph or a plan that keeps tensors in other files, or is not the file that detector.json was written for."""


class OutputError(UserError):
    """A result file that cannot be written."""


def excerpt(text: str) -> str:
    """What a file or a library says, as a part of a sentence of ours: one short line without control characters."""
    shown = text[: _LONGEST_EXCERPT + 1]
    line = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in shown)
    return line if len(line) <= _LONGEST_EXCERPT else line[:_LONGEST_EXCERPT] + "…"

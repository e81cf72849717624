"""The one kind of error that a user sees: a sentence that says what is wrong and what to do."""

from spai_runtime.text import visible


class UserError(Exception):
    """An input, file or environment cannot be used; the message is one line for the user.

    A line break in the message, for example from a file's name, becomes a space; other unprintable text is escaped.
    """

    def __str__(self) -> str:
        return visible(super().__str__().replace("\n", " "))


class RefusedError(UserError):
    """A file was not opened because it could do harm: it asks for code, or for other files of the machine, or it is not
    the file that it should be.

    A command that ends with this error has an exit code of its own.
    """


class ImageError(UserError):
    """A file is not an image, or cannot be decoded; in a run, the error goes into that image's row."""


class SourceError(UserError):
    """An INPUT names nothing, or a list cannot be read."""


class ManifestError(UserError):
    """A detector.json is missing, malformed, or of a newer schema."""


class EngineError(UserError):
    """A graph is missing, refused, or does not do what detector.json says; or a back end is not installed."""


class GraphRefusedError(EngineError, RefusedError):
    """A graph or a plan keeps tensors in other files, or is not the file that detector.json was written for."""


class OutputError(UserError):
    """A result file cannot be written."""

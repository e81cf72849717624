"""The one kind of error that a user meets: a sentence that says what is wrong and what to do."""

from spai_runtime.text import visible


class UserError(Exception):
    """Input, file or environment that cannot be used; its message is one line, meant for the user.

    A line break in it, from the name of a file for example, becomes a space, and what else is not printable an escape.
    """

    def __str__(self) -> str:
        return visible(super().__str__().replace("\n", " "))


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

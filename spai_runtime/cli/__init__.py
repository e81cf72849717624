"""The command spai-run."""

from spai_runtime.cli.run import main

__all__ = ["main"]

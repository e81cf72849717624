"""A child process with limits, for work on data whose cost nobody can know before: graphs and images of strangers."""

from spai_runtime.child.limits import Limits
from spai_runtime.child.parent import Child, ChildError, ChildMemoryError, ChildStartError, ChildTimeError

__all__ = ["Child", "ChildError", "ChildMemoryError", "ChildStartError", "ChildTimeError", "Limits"]

"""A child process with limits, for work on strangers' graphs and images, whose cost cannot be known in advance."""

from spai_runtime.child.limits import Limits
from spai_runtime.child.parent import Child, ChildError, ChildMemoryError, ChildStartError, ChildTimeError

__all__ = ["Child", "ChildError", "ChildMemoryError", "ChildStartError", "ChildTimeError", "Limits"]

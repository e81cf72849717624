"""Views: the pixels of an image that a detector looks at. A policy is data; a layout applies it to an image."""

from spai_runtime.views.layout import Layout, reflect
from spai_runtime.views.policy import Tiles, ViewPolicy
from spai_runtime.views.resize import Resize

__all__ = ["Layout", "Resize", "Tiles", "ViewPolicy", "reflect"]

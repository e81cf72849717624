"""Views: the pixels of an image that a detector looks at. A policy is data; a layout applies it to an image."""

from spai_runtime.views.layout import Layout, Source
from spai_runtime.views.padding import Padding, reflect, wrap, zero
from spai_runtime.views.policy import CentreCrop, TenCrop, Tiles, ViewPolicy, ViewShape, WholeImage
from spai_runtime.views.resize import Resize
from spai_runtime.views.window import Window

__all__ = [
    "CentreCrop",
    "Layout",
    "Padding",
    "Resize",
    "Source",
    "TenCrop",
    "Tiles",
    "ViewPolicy",
    "ViewShape",
    "WholeImage",
    "Window",
    "reflect",
    "wrap",
    "zero",
]

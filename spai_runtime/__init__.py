"""Scores images of any size with an exported detector: numpy, Pillow and one engine, no torch.

>>> from spai_runtime import Detector
>>> Detector.load("model/").score("photo.jpg")  # doctest: +SKIP
Score(score=0.0123, logit=-4.38, label='real')
"""

from typing import Any

from spai_runtime.detector import Detector
from spai_runtime.errors import EngineError, ImageError, ManifestError, OutputError, SourceError, UserError
from spai_runtime.fusion import Fusion, Rule
from spai_runtime.images import FORMATS, UNTRUSTED_FORMATS
from spai_runtime.manifest import Manifest, Threshold
from spai_runtime.results import Result, Score
from spai_runtime.scoring.pipeline import score_all
from spai_runtime.views import CentreCrop, Layout, Resize, TenCrop, Tiles, ViewPolicy, WholeImage

__all__ = [
    "FORMATS",
    "UNTRUSTED_FORMATS",
    "CentreCrop",
    "Detector",
    "EngineError",
    "Fusion",
    "ImageError",
    "Layout",
    "Manifest",
    "ManifestError",
    "OutputError",
    "Resize",
    "Result",
    "Rule",
    "Score",
    "SourceError",
    "TenCrop",
    "Threshold",
    "Tiles",
    "UserError",
    "ViewPolicy",
    "WholeImage",
    "score_all",
]

__version__: str


def __getattr__(name: str) -> Any:
    """Look up `__version__` of the installed package when somebody asks for it, since that takes a while."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version  # noqa: PLC0415

    return version("spai-toolkit")

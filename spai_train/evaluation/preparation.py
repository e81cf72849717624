"""What a benchmark does to its images before anything else happens to them."""

from dataclasses import dataclass
from typing import Literal

from spai_runtime.images import Picture
from spai_train.data.perturb import NONE, Kind, Perturbation
from spai_train.data.table import GENERATED, REAL
from spai_train.evaluation.pictures import PerturbedPicture

Images = Literal["all", "real", "generated"]

_CLASSES: dict[Images, tuple[int, ...]] = {"all": (REAL, GENERATED), "real": (REAL,), "generated": (GENERATED,)}


@dataclass(frozen=True)
class Preparation:
    """One change, of all images or of the images of one class."""

    perturbation: Perturbation = NONE
    images: Images = "all"

    @property
    def described(self) -> str:
        """The change in words, or "" where nothing is done."""
        if self.perturbation.kind is Kind.NONE:
            return ""
        return f"{self.perturbation}, {self.images} images"

    def of(self, picture: Picture, label: int, seed: int) -> Picture:
        """The picture as it is measured, which is decoded no sooner than before.

        :param label: the picture's class
        :param seed: see `Perturbation.apply`
        """
        if self.perturbation.kind is Kind.NONE or label not in _CLASSES[self.images]:
            return picture
        return PerturbedPicture(picture, self.perturbation, seed)


AS_THEY_ARE = Preparation()

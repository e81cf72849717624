"""Several detectors on the same images: each of them, each rule of fusion, and how far they disagree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from spai_runtime.calibration import probability
from spai_runtime.detector import Detector
from spai_runtime.files.rows import Columns
from spai_runtime.fusion import UNCALIBRATED, Rule, common_positive
from spai_runtime.manifest import Threshold
from spai_train.data.perturb import Perturbation
from spai_train.evaluation.disagreement import Disagreement, Verdicts
from spai_train.evaluation.evaluate import Evaluation, Images, Options, describe, evaluation_of, score
from spai_train.evaluation.scored import ScoredTable


@dataclass(frozen=True)
class Together:
    """What was found of several detectors.

    :param names: the detectors' names in columns, each different
    :param detectors: an evaluation of each detector
    :param fusions: an evaluation of each rule of fusion
    :param disagreements: those of each pair of detectors, on the images as they are and then under each perturbation
    """

    names: Sequence[str]
    detectors: Sequence[Evaluation]
    fusions: Mapping[Rule, Evaluation]
    disagreements: Sequence[tuple[Perturbation, Disagreement]]

    @property
    def named(self) -> dict[str, Evaluation]:
        """The evaluations of all detectors and rules, by the names that people see."""
        fused = {name_of(rule): found for rule, found in self.fusions.items()}
        return {**dict(zip(self.names, self.detectors, strict=True)), **fused}

    @property
    def images(self) -> int:
        """How many images there are, scored or not, counted under each perturbation again."""
        return self.detectors[0].images

    @property
    def errors(self) -> int:
        """How many images at least one detector could not score."""
        return self.fusions[Rule.SOFT_OR].errors


def name_of(rule: Rule) -> str:
    """The name that columns and reports give to scores that were fused by a rule."""
    return f"fusion_{rule}"


def evaluate_together(
    detectors: Sequence[Detector],
    images: Images,
    options: Options,
    files: Sequence[Mapping[str, str]],
    threshold: Threshold | None = None,
) -> Together:
    """Scores the images, each of which is decoded once, and measures what the detectors say of them.

    :param files: the files that each detector was loaded from, with their sha256
    :param threshold: that of fused scores; None takes the default
    :raises EngineError: the detectors detect different things, so that their scores cannot be fused
    """
    assert options.request is None, "which detector would be calibrated?"
    positive = common_positive([detector.manifest for detector in detectors])
    names = names_of(detectors)
    scored = score(detectors, images, options)
    found = [
        evaluation_of(
            {**describe(detector, sha256), "name": name},
            tables,
            options.threshold or detector.threshold,
            positive,
            images,
            options,
        )
        for detector, sha256, name, tables in zip(detectors, files, names, scored, strict=True)
    ]
    fused = {}
    for rule in Rule:
        tables = [fuse(same, rule) for same in zip(*scored, strict=True)]
        about = {"name": name_of(rule), "method": "fusion", "sha256": {}}
        fused[rule] = evaluation_of(
            about, tables, threshold or options.threshold or UNCALIBRATED, positive, images, options
        )
    return Together(names, found, fused, _disagreements(names, found, options))


def names_of(detectors: Sequence[Detector]) -> list[str]:
    """The names that `spai-run` gives to the columns of several detectors; none is that of a fused score."""
    taken = [name_of(rule) for rule in Rule]
    return Columns((), [*taken, *(detector.manifest.name for detector in detectors)]).detector_names[len(taken) :]


def fuse(tables: Sequence[ScoredTable], rule: Rule) -> ScoredTable:
    """Fuses what several detectors say of the same images: an image that one could not score has no score.

    :param tables: the table of each detector, on the same rows
    """
    errors = tuple(next(filter(None, said), "") for said in zip(*(table.errors for table in tables), strict=True))
    odds = np.full(len(errors), np.nan)
    for index in np.flatnonzero([not error for error in errors]):
        odds[index] = rule.fuse([float(table.log_odds[index]) for table in tables])
    scores = np.array([np.nan if np.isnan(one) else probability(one) for one in odds.tolist()])
    return ScoredTable(tables[0].rows, scores, odds, odds, errors, tables[0].perturbation)


def _disagreements(
    names: Sequence[str], found: Sequence[Evaluation], options: Options
) -> list[tuple[Perturbation, Disagreement]]:
    pairs = []
    for tables in zip(*(one.tables for one in found), strict=True):
        verdicts = [Verdicts(*each) for each in zip(names, tables, (one.threshold for one in found), strict=True)]
        for first, second in combinations(verdicts, 2):
            between = Disagreement.between(first, second, options.resamples, options.seed)
            pairs.append((tables[0].perturbation, between))
    return pairs

"""Protocols against brute force, and upstream's own CSVs."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from spai_train.data.table import read_tables
from spai_train.evaluation.bootstrap import draw
from spai_train.evaluation.metrics import METRICS, bootstrap_rate
from spai_train.evaluation.protocol import Protocol, measure
from tests.support.scored import SCORES, TABLE, table_of

Array = NDArray[np.float64]


POOLED = {"glide": [("coco", "raise", "own")], "flux": [("coco", "raise", "own")], "own": [("own",)]}
SPAI = {
    "glide": [("coco",), ("raise",), ("own",)],
    "flux": [("coco",), ("raise",), ("own",)],
    "own": [("own",)],
}


@pytest.mark.parametrize(("protocol", "expected"), [(Protocol.POOLED, POOLED), (Protocol.SPAI, SPAI)])
def test_opponents(protocol: Protocol, expected: dict[str, list[tuple[str, ...]]]) -> None:
    assert protocol.opponents(SCORES) == expected
    assert protocol.opponents([("glide", 1)]) == {"glide": []}
    assert protocol.opponents([("coco", 0)]) == {}


def brute_force(name: str, scores: dict[tuple[str, int], Array], opponents: dict[str, list[tuple[str, ...]]]) -> Array:
    """A metric of each generator, by scikit-learn and loops."""
    function = {
        "auc": roc_auc_score,
        "average_precision": average_precision_score,
        "balanced_accuracy": lambda labels, values: balanced_accuracy_score(labels, values > 0.6),
    }[name]
    found = []
    for source, against in opponents.items():
        values = []
        for sources in against:
            real, generated = np.concatenate([scores[each, 0] for each in sources]), scores[source, 1]
            labels = np.repeat((0, 1), (real.size, generated.size))
            values.append(function(labels, np.concatenate((real, generated))))
        found.append(np.mean(values))
    return np.array(found)


@pytest.mark.parametrize("name", ["auc", "average_precision", "balanced_accuracy"])
@pytest.mark.parametrize(("protocol", "opponents"), [(Protocol.POOLED, POOLED), (Protocol.SPAI, SPAI)])
def test_values_and_intervals_are_those_of_brute_force(
    name: str, protocol: Protocol, opponents: dict[str, list[tuple[str, ...]]]
) -> None:
    """Every source and class is drawn once a resample, for all the generators that meet it."""
    found = measure(TABLE, protocol, 0.6, resamples=40, seed=9)
    drawn = dict(zip(SCORES, draw([scores.size for scores in SCORES.values()], 40, seed=9), strict=True))
    resampled = np.array(
        [
            brute_force(name, {key: np.repeat(scores, drawn[key][index]) for key, scores in SCORES.items()}, opponents)
            for index in range(40)
        ]
    )  # (S, G)
    values = brute_force(name, SCORES, opponents)
    intervals = [*(metrics[name] for metrics in found.metrics.values()), found.mean[name]]
    expected = [*values, values.mean()]
    spread = np.quantile(np.column_stack((resampled, resampled.mean(axis=1))), (0.025, 0.975), axis=0)
    assert list(found.metrics) == list(opponents)
    np.testing.assert_allclose([interval.value for interval in intervals], expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose([(interval.low, interval.high) for interval in intervals], spread.T, rtol=0, atol=1e-12)


def test_the_mean_of_generators_that_share_their_real_images_is_no_surer_than_they_allow() -> None:
    """Ten copies of a generator: averaging them takes nothing of the real images' luck away."""
    rng = np.random.default_rng(1)
    real = rng.beta(2, 3, 40)
    copies = [(f"g{index}", 1, rng.beta(3, 2, 4000).tolist()) for index in range(10)]
    found = measure(table_of([("real", 0, real.tolist()), *copies]), Protocol.POOLED, 0.5, resamples=200, seed=0)
    widths = [metrics["auc"].high - metrics["auc"].low for metrics in found.metrics.values()]
    assert found.mean["auc"].high - found.mean["auc"].low > 0.9 * np.mean(widths)


def test_rates_of_every_source_and_class() -> None:
    table = table_of([("coco", 0, [0.1, 0.7, np.nan, 0.6]), ("lost", 0, [np.nan]), ("glide", 1, [0.9, 0.2])])
    found = measure(table, Protocol.POOLED, 0.6, resamples=50, seed=4)
    coco, lost, glide = found.rates
    assert (coco.source, coco.label, coco.images, coco.errors) == ("coco", 0, 4, 1)
    assert coco.labelled_ai == bootstrap_rate([0.1, 0.7, 0.6], 0.6, 4, 50)
    assert (lost.images, lost.errors, lost.labelled_ai) == (1, 1, None)
    assert glide.labelled_ai is not None
    assert glide.labelled_ai.value == 0.5
    assert found.opponents == {"glide": [("coco",)]}  # the lost source has no image to be told from
    assert found.metrics["glide"]["auc"].value == 4 / 6
    assert (found.metrics_of(coco), found.opponents_of(coco)) == ({}, [])
    assert (found.metrics_of(glide), found.opponents_of(glide)) == (found.metrics["glide"], [("coco",)])


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_rates_alone(label: int) -> None:
    found = measure(table_of([("a", label, [0.2, 0.8])]), Protocol.SPAI, 0.5, resamples=10, seed=0)
    assert (found.opponents, found.metrics, found.mean) == ({}, {}, {})
    assert found.rates[0].labelled_ai is not None
    assert found.rates[0].labelled_ai.value == 0.5


def test_every_metric_is_there() -> None:
    found = measure(TABLE, Protocol.SPAI, 0.5, resamples=10, seed=0)
    assert list(found.mean) == list(METRICS)
    assert all(list(metrics) == list(METRICS) for metrics in found.metrics.values())
    for interval in found.mean.values():
        assert 0 <= interval.low <= interval.high <= 1


def test_upstreams_tables_as_they_are(tmp_path: Path) -> None:
    """A CSV for each of 13 generators and 5 real sources, with `image,class,split`, names below one root."""
    real = {"real_coco": "COCO/test2017/000000113339.jpg", "real_raise": "RAISE-1k/tiff/r0b0e2ba5t.tif"}
    fake = {"fake_glide": "synthbuster/glide/r1d1445b6t.png", "fake_sd3": "stable-diffusion-3/cfg_60/000004157_7.webp"}
    for names, label in ((real, 0), (fake, 1)):
        for stem, name in names.items():
            (tmp_path / f"{stem}.csv").write_text(f"image,class,split\n{name},{label},test\n")
    rows = read_tables(sorted(tmp_path.glob("*.csv")), "test", Path("/data"))
    assert [(row.source, row.label) for row in rows] == [*((stem, 1) for stem in fake), *((stem, 0) for stem in real)]
    assert [str(row.path) for row in rows] == [f"/data/{name}" for name in (*fake.values(), *real.values())]
    strata = [(row.source, row.label) for row in rows]
    assert Protocol.SPAI.opponents(strata)["fake_sd3"] == [("real_coco",), ("real_raise",)]

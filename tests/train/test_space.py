"""Spaces of a search: what YAML says, and what is refused."""

from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from spai_train.space import Choice, Range, SpaceError, extremes, load_space

YAML = """
optimizer.learning_rate: {low: 1e-5, high: 1e-3, log: true}
model.dropout: {low: 0, high: .5}
views: {low: 1, high: 8}
batch_size: {choices: [36, 72]}
freeze: {choices: [true, null]}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "space.yaml"
    path.write_text(text)
    return path


def test_a_space_is_what_its_yaml_says(tmp_path: Path) -> None:
    assert load_space(write(tmp_path, YAML)) == {
        "optimizer.learning_rate": Range(1e-5, 1e-3, log=True),
        "model.dropout": Range(0, 0.5),
        "views": Range(1, 8),
        "batch_size": Choice((36, 72)),
        "freeze": Choice((True, None)),
    }


def test_numbers_are_whole_where_both_ends_are(tmp_path: Path) -> None:
    trial = optuna.create_study().ask()
    for key, dimension in load_space(write(tmp_path, YAML)).items():
        dimension.suggest(trial, key)
    assert list(trial.distributions.values()) == [
        FloatDistribution(1e-5, 1e-3, log=True),
        FloatDistribution(0, 0.5),
        IntDistribution(1, 8),
        CategoricalDistribution((36, 72)),
        CategoricalDistribution((True, None)),
    ]


def test_extremes_are_the_ends_and_every_choice() -> None:
    space: dict[str, Range | Choice] = {"a": Range(1, 3), "b": Choice(("x", "y", None))}
    assert list(extremes(space)) == [{"a": 1}, {"a": 3}, {"b": "x"}, {"b": "y"}, {"b": None}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: {low: 1, hi: 2}", "a is neither {low, high[, log]} nor {choices}: Object contains unknown field `hi`"),
        ("a: {low: 1}", "missing required field `high`"),
        ("a: {low: x, high: 2}", "Expected `int | float`, got `str`"),
        ("a: {low: 2, high: 1}", r"low (2) is not below high (1)"),
        ("a: {low: 0, high: 1, log: true}", "log needs a low above 0, not 0"),
        ("a: {choices: []}", "choices is empty"),
        ("a: {choices: [1], low: 1}", "unknown field `low`"),
        ("a: 3", "Expected `object`, got `int`"),
        ("[1, 2]", "names no keys; e.g. optimizer.learning_rate: {low: 1e-5"),
        ("", "names no keys"),
        ("a: {", "is not YAML"),
    ],
)
def test_a_space_without_sense_is_refused_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SpaceError) as caught:
        load_space(write(tmp_path, text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_space_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"cannot read .*absent\.yaml: No such file"):
        load_space(tmp_path / "absent.yaml")

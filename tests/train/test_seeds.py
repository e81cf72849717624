"""Seeds: the same in every version, and no two places alike."""

from itertools import product

import torch

from spai_train.seeds import Use, seed_of


def test_uses_and_seeds_are_those_of_every_version() -> None:
    """A resumed run must draw what it would have drawn, whatever was installed in between."""
    assert [(use.name, use.value) for use in Use] == [
        ("ORDER", 0),
        ("AUGMENT", 1),
        ("SUBSTITUTE", 2),
        ("STEP", 3),
        ("INITIAL", 4),
    ]
    assert seed_of(0, Use.ORDER, 0) == 7896617691693857887
    assert seed_of(2025, Use.AUGMENT, 3, 17, 1) == 5460542155490131623


def test_places_have_seeds_of_their_own() -> None:
    places = list(product(range(3), Use, range(4), range(4)))
    seeds = [seed_of(seed, use, *place) for seed, use, *place in places]
    assert len(set(seeds)) == len(places)


def test_every_generator_takes_them() -> None:
    seeds = [seed_of(0, Use.STEP, step) for step in range(1000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62  # and all 63 bits are used
    torch.Generator().manual_seed(max(seeds))

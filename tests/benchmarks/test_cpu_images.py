"""Images of benchmarks/cpu: pieces of photographs, and scenes of a recipe's test set; and the processor's name."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from cpu import images, processor
from cpu.images import calibration, cut, demo_scenes, gathered
from PIL import Image
from sklearn.datasets import load_sample_images

from spai_train.simulation.folder import Simulation, Split, simulate
from spai_train.simulation.generators import GeneratorSpec, GeneratorTraining

RECIPE = Simulation(
    seed=7,
    seen=(GeneratorSpec("laplacian", 4),),  # needs no training
    unseen=(GeneratorSpec("laplacian", 8),),
    generator=GeneratorTraining(crops=1, crop_size=16),
    splits={"train": Split(real=1), "val": Split(real=1, seen=1), "test": Split(real=4, seen=2, unseen=2)},
    workers=0,
)


def test_pieces_are_cut_out_of_photographs(tmp_path: Path) -> None:
    first, second = (cut(tmp_path / name, 6) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert [path.suffix for path in first] == [".png", ".jpg"] * 3
    china = load_sample_images().images[0]
    piece = np.asarray(Image.open(first[0]))
    windows = np.lib.stride_tricks.sliding_window_view(china[..., 0], piece.shape[:2])
    corners = np.argwhere((windows[:, :, ::40, ::40] == piece[::40, ::40, 0]).all(axis=(2, 3)))
    height, width = piece.shape[:2]
    assert any((china[top : top + height, left : left + width] == piece).all() for top, left in corners)


def test_scenes_are_the_first_of_the_test_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the byte; drawn once."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(images, "CALIBRATED", 1)
    directory = demo_scenes(4, RECIPE)
    simulate(RECIPE, tmp_path / "whole")
    whole = {path.read_bytes() for path in (tmp_path / "whole" / "images").iterdir()}
    found = [path.read_bytes() for path in (directory / "images").iterdir()]
    assert len(set(found)) == 12  # each as PNG and as JPEG; some are of val
    assert set(found) < whole
    times = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    assert demo_scenes(4, RECIPE) == directory
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == times
    names = [path.name.partition("_")[2] for path in calibration(directory)]
    assert names == ["real.png", "real.jpg", "laplacian-x4.png", "laplacian-x4.jpg"]
    sets = gathered(tmp_path / "pieces", directory)
    assert [(len(one.real), len(one.generated)) for one in sets.labelled.values()] == [(2, 2), (2, 2)]
    assert len(sets.looked_at) == 25 + 8
    assert len(sets.all) == 25 + 8


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("model name\t: Intel(R) Xeon(R) Processor @ 2.70GHz", "Intel Xeon Processor"),
        ("model name\t: AMD EPYC 9R14", "AMD EPYC 9R14"),
        ("model name\t: Intel(R) Core(TM) i7-1165G7 CPU @ 2.80GHz", "Intel Core i7-1165G7"),
    ],
)
def test_names_of_processors(tmp_path: Path, line: str, name: str) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\n{line}\nflags\t\t: fpu\n\nprocessor\t: 1\n{line}\n")
    assert processor.name(path) == name


def test_a_processor_that_says_no_name_has_that_of_its_kind(tmp_path: Path) -> None:
    assert processor.name(tmp_path / "none")

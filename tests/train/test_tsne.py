"""Maps of embeddings: the embeddings are the model's own, neighbours stay together, and nothing is lost on the way."""

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from matplotlib.colors import to_hex
from PIL import Image

from spai_runtime.cli.commands import execute
from spai_runtime.images import Picture
from spai_runtime.views import Tiles
from spai_train.checkpoint import load_checkpoint
from spai_train.commands import tsne as command
from spai_train.data.table import COLUMNS as TABLE
from spai_train.data.table import Row, write_table
from spai_train.detectors.spai.model import SPAI
from spai_train.evaluation.tsne import COLUMNS, MapError, draw, embed, fitting, project, sample
from tests.support.images import Write

Call = Callable[..., tuple[int, str, str]]


def row(name: str, source: str = "camera", label: int = 0, folder: Path = Path()) -> Row:
    return Row(name, folder / name, label, "test", source)


@pytest.fixture
def rows(photo: Write) -> list[Row]:
    """Ten small images of two sources."""
    kinds = [("camera", 0), ("generator", 1)] * 5
    paths = [photo(f"{index}.png", 40 + 10 * index, 70, seed=index) for index in range(10)]
    return [row(path.name, *kind, folder=path.parent) for path, kind in zip(paths, kinds, strict=True)]


def test_embeddings_are_what_the_model_makes_of_the_images_views(
    tiny_model: SPAI, tiny_checkpoint: Path, rows: list[Row]
) -> None:
    policy = Tiles(tiny_model.config.tile_size, tiny_model.config.tile_stride, tiny_model.config.minimum_tiles)
    found = list(embed(load_checkpoint(tiny_checkpoint), rows, "cpu"))
    assert [image.row for image in found] == rows
    for image in found:
        picture = Picture.open(image.row.path).load()
        views = policy.layout(picture.height, picture.width).stack(picture)
        with torch.inference_mode():
            expected = tiny_model(torch.from_numpy(views)[None]).embedding[0]
        assert image.embedding is not None
        np.testing.assert_allclose(image.embedding, expected, atol=1e-5)


def test_images_that_are_judged_together_keep_their_own_embeddings(
    tiny_model: SPAI, tiny_checkpoint: Path, photo: Write
) -> None:
    """Of five views each, beside batches of four: several images have all their features at once."""
    paths = [photo(f"small-{index}.png", 34, 33, seed=index) for index in range(9)]
    found = list(embed(load_checkpoint(tiny_checkpoint), [row(path.name, folder=path.parent) for path in paths], "cpu"))
    for path, image in zip(paths, found, strict=True):
        picture = Picture.open(path).load()
        views = Tiles(32, 32, 4).layout(picture.height, picture.width).stack(picture)
        with torch.inference_mode():
            expected = tiny_model(torch.from_numpy(views)[None]).embedding[0]
        assert image.embedding is not None
        np.testing.assert_allclose(image.embedding, expected, atol=1e-5)


def test_an_image_that_cannot_be_read_keeps_its_place(tiny_checkpoint: Path, rows: list[Row], tmp_path: Path) -> None:
    (tmp_path / "3.png").write_text("no image")
    found = list(embed(load_checkpoint(tiny_checkpoint), rows, "cpu"))
    assert [index for index, image in enumerate(found) if image.embedding is None] == [3]
    assert found[3].error.startswith("not an image")
    assert found[2].error == ""


def test_a_sample_has_so_many_of_each_source_in_their_order() -> None:
    table = [row(str(index), "abbc"[index % 4]) for index in range(40)]
    chosen = sample(table, 7, seed=0)
    assert Counter(each.source for each in chosen) == {"a": 7, "b": 7, "c": 7}
    assert chosen == [each for each in table if each in chosen]
    assert chosen == sample(table, 7, seed=0) != sample(table, 7, seed=1)
    assert sample(table, None, seed=0) == sample(table, 20, seed=0) == table


@pytest.mark.parametrize(("images", "perplexity"), [(3, 1.0), (31, 10.0), (91, 30.0), (1000, 30.0)])
def test_perplexity_is_lowered_to_a_third_of_the_others(images: int, perplexity: float) -> None:
    assert fitting(30.0, images) == perplexity


def test_neighbours_stay_neighbours() -> None:
    """Three clusters far apart in 16 dimensions: on the plane, every point's nearest one is of its own cluster."""
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(3), 12)
    embeddings = rng.normal(size=(36, 16)) + 30 * rng.normal(size=(3, 16))[clusters]
    points = project(embeddings.astype(np.float32), 8.0, seed=0)
    distances = np.linalg.norm(points[:, None] - points, axis=2) + np.diag(np.full(36, np.inf))
    assert points.shape == (36, 2)
    assert (clusters[distances.argmin(axis=1)] == clusters).all()
    np.testing.assert_array_equal(points, project(embeddings.astype(np.float32), 8.0, seed=0))


def test_three_images_are_enough_and_two_are_not() -> None:
    embeddings = np.eye(3, 5, dtype=np.float32)
    assert np.isfinite(project(embeddings, fitting(30.0, 3), seed=0)).all()
    with pytest.raises(MapError, match="a map needs 3 images that can be read, and there are 2: name more"):
        project(embeddings[:2], 1.0, seed=0)


def test_the_picture_has_a_colour_a_source_and_a_marker_a_class() -> None:
    table = [row("a", "x"), row("b", "y", 1), row("c", "y", 0), row("d", "x"), row("e", "$z$", 1)]
    points = np.arange(10, dtype=np.float32).reshape(5, 2)
    (axes,) = (figure := draw(table, points, 1.0)).axes
    drawn = {str(line.get_label()): line for line in axes.lines}
    assert list(drawn) == ["real: x (2)", "real: y (1)", "AI-generated: y (1)", r"AI-generated: \$z\$ (1)"]
    assert [line.get_marker() for line in drawn.values()] == ["o", "o", "^", "^"]
    x, y, generated_y, z = (to_hex(str(line.get_color())) for line in drawn.values())
    assert y == generated_y
    assert len({x, y, z}) == 3
    np.testing.assert_array_equal(drawn["real: x (2)"].get_xydata(), points[[0, 3]])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(drawn)


def test_twenty_sources_all_look_different() -> None:
    table = [row(str(index), f"source {index}") for index in range(20)]
    (axes,) = draw(table, np.zeros((20, 2), np.float32), 1.0).axes
    assert len({(line.get_color(), line.get_fillstyle()) for line in axes.lines}) == 20


@pytest.fixture
def call(tiny_checkpoint: Path, rows: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """`spai-train tsne` over the rows, into `map/`."""
    app = typer.Typer()
    app.callback()(lambda: None)
    app.command("tsne", epilog=command.EPILOG)(command.run)
    write_table(tmp_path / "images.csv", rows)

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        fixed = ("tsne", tmp_path / "images.csv", "--ckpt", tiny_checkpoint, "--output", tmp_path / "map")
        code = execute(app, "spai-train", [str(argument) for argument in (*fixed, "--device", "cpu", *arguments)])
        return code, *capsys.readouterr()

    return run


def points(folder: Path) -> list[dict[str, str]]:
    with (folder / "tsne.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_command_writes_a_point_an_image(call: Call, tmp_path: Path, rows: list[Row]) -> None:
    code, out, err = call("--perplexity", 2)
    assert (code, out, err) == (0, f"{tmp_path / 'map' / 'tsne.png'}\n", "")
    table = points(tmp_path / "map")
    assert list(table[0]) == list(COLUMNS)
    assert COLUMNS[1:4] == TABLE[1:]
    assert [(each["name"], each["class"], each["source"]) for each in table] == [
        (each.name, str(each.label), each.source) for each in rows
    ]
    assert all(np.isfinite((float(each["x"]), float(each["y"]))).all() for each in table)
    assert Image.open(tmp_path / "map" / "tsne.png").format == "PNG"
    assert len(list((tmp_path / "map").iterdir())) == 2


def test_the_command_names_what_it_skips_and_what_it_changes(call: Call, tmp_path: Path) -> None:
    (tmp_path / "4.png").write_text("no image")
    code, _, err = call()
    assert code == 3
    skipped, lowered = err.splitlines()
    assert skipped.startswith("skipped 4.png: not an image")
    assert lowered == "perplexity 2.67 instead of 30: there are 9 images"
    assert len(points(tmp_path / "map")) == 9


def test_the_command_limits_the_images_of_a_source(call: Call, tmp_path: Path) -> None:
    assert call("--limit", 3)[0] == 0
    assert Counter(each["source"] for each in points(tmp_path / "map")) == {"camera": 3, "generator": 3}


def test_the_command_refuses_too_few_images_in_one_line(call: Call, tmp_path: Path) -> None:
    assert call("--limit", 1) == (
        2,
        "",
        "spai-train: a map needs 3 images that can be read, and there are 2: name more\n",
    )
    assert not (tmp_path / "map").exists()

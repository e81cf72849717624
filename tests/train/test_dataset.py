"""Training images: the very pixels, functions of seed, epoch and image; and what stands in for one that is broken."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from spai_train.data.augment import Augment
from spai_train.data.augmentation import FINETUNE, PLAIN, Augmentation
from spai_train.data.dataset import Batch, PackedRows, Sample, TrainingImages, collate, load_batches
from spai_train.data.order import Order, Plan, Ticket, permutation
from spai_train.data.stores import Files
from spai_train.data.table import Row, TableError, read_table
from tests.support.training import write_labelled

SIZE = 32
PLAN = Plan(images=24, batch_size=8, epochs=2, accumulate=2)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """24 images that can be read."""
    return read_table(write_labelled(tmp_path_factory.mktemp("data") / "set"), "train")


@pytest.fixture
def broken(rows: list[Row], tmp_path: Path) -> list[Row]:
    """The same, of which the images 4 (real), 7 and 9 (generated) are wrong in ways of their own."""
    changed = list(rows)
    contents = (b"", b"no image", rows[9].path.read_bytes()[:-500])
    for index, content in zip((4, 7, 9), contents, strict=True):
        path = tmp_path / f"{index}.png"
        path.write_bytes(content)
        changed[index] = replace(rows[index], path=path)
    return changed


def images(rows: list[Row], settings: Augmentation = PLAIN, views: int = 2, seed: int = 0) -> TrainingImages:
    return TrainingImages(rows, Files(), Augment(settings, SIZE), views, seed)


def holds(row: Row, view: NDArray[np.uint8]) -> bool:
    """Whether a view is a piece of an image, looked for everywhere in it."""
    with Image.open(row.path) as image:
        pixels = np.asarray(image)
    pieces = np.lib.stride_tricks.sliding_window_view(pixels, view.shape).reshape(-1, *view.shape)
    return bool((pieces == view).all(axis=(1, 2, 3)).any())


def test_views_beside_others_are_those_of_their_augmentation(rows: list[Row]) -> None:
    both = TrainingImages(rows, Files(), Augment(PLAIN, SIZE), 2, 5, Augment(FINETUNE, 2 * SIZE))
    ticket = Ticket(1, 3)
    sample = both[ticket]
    np.testing.assert_array_equal(sample.views, images(rows, PLAIN, views=2, seed=5)[ticket].views)
    other = TrainingImages(rows, Files(), Augment(FINETUNE, 2 * SIZE), 2, 5)[ticket].views
    assert sample.beside is not None
    np.testing.assert_array_equal(sample.beside, other)
    batch = collate([sample, sample])
    assert batch.beside is not None
    assert (batch.views.shape, batch.beside.shape) == ((2, 2, SIZE, SIZE, 3), (2, 2, 2 * SIZE, 2 * SIZE, 3))
    assert collate([images(rows, PLAIN)[ticket]]).beside is None


def test_rows_are_packed_whole() -> None:
    odd = [Row(f"n\n{i}\udce9.png", Path(f"/x/{i}"), i % 2, "", "camera, é") for i in range(5)]
    packed = PackedRows(odd)
    assert list(packed) == odd
    assert list(pickle.loads(pickle.dumps(packed))) == odd
    assert (len(packed), packed[4]) == (5, odd[4])
    with pytest.raises(IndexError):
        packed[5]


def test_views_are_pieces_of_their_image(rows: list[Row]) -> None:
    sample = images(rows)[Ticket(0, 5)]
    assert (sample.views.shape, sample.views.dtype, sample.failures) == ((2, SIZE, SIZE, 3), np.uint8, ())
    assert sample.label == rows[5].label == 1
    assert all(holds(rows[5], view) for view in sample.views)
    assert not holds(rows[3], sample.views[0])


def test_views_follow_from_seed_epoch_and_image_alone(rows: list[Row]) -> None:
    whole, part = images(rows, FINETUNE), images(rows[:6], FINETUNE)
    for ticket in (Ticket(0, 5), Ticket(3, 0)):
        np.testing.assert_array_equal(whole[ticket].views, part[ticket].views)
    places = [(seed, epoch) for seed in range(2) for epoch in range(2)]
    drawn = [
        images(rows, FINETUNE, seed=seed)[Ticket(epoch, 5)].views[view] for seed, epoch in places for view in (0, 1)
    ]
    assert len({view.tobytes() for view in drawn}) == 8


def test_more_views_leave_the_first_as_they_are(rows: list[Row]) -> None:
    few, many = (images(rows, FINETUNE, views=views)[Ticket(1, 2)].views for views in (2, 4))
    np.testing.assert_array_equal(few, many[:2])


@pytest.mark.parametrize(("index", "said"), [(4, "the file is empty"), (7, "not an image"), (9, "truncated")])
def test_a_broken_image_is_replaced_by_one_of_its_class(index: int, said: str, broken: list[Row]) -> None:
    sample = images(broken)[Ticket(0, index)]
    name, error = sample.failures[0]
    assert name == broken[index].name
    assert said in error
    assert sample.label == broken[index].label
    substitutes = [row for row in broken if row.path.stat().st_size and holds_if_whole(row, sample.views[0])]
    assert [row.label for row in substitutes] == [broken[index].label]


def holds_if_whole(row: Row, view: NDArray[np.uint8]) -> bool:
    try:
        return holds(row, view)
    except OSError:
        return False


def test_substitutes_follow_from_seed_and_epoch(broken: list[Row]) -> None:
    drawn = {}
    for seed in range(3):
        for epoch in range(4):
            sample = images(broken, seed=seed)[Ticket(epoch, 4)]
            np.testing.assert_array_equal(sample.views, images(broken, seed=seed)[Ticket(epoch, 4)].views)
            drawn[seed, epoch] = sample.views.tobytes()
    assert len(set(drawn.values())) == 12


def test_a_broken_substitute_is_noted_too(broken: list[Row]) -> None:
    """Of four generated images, two cannot be read."""
    few = [broken[index] for index in (7, 9, 11, 13)]
    failures = [images(few)[Ticket(epoch, 0)].failures for epoch in range(20)]
    assert all(failed[0].name == broken[7].name for failed in failures)
    assert {name for failed in failures for name, _ in failed} == {broken[7].name, broken[9].name}


def test_a_batch_is_its_samples() -> None:
    views = np.arange(2 * 3 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 4, 3)
    batch = collate([Sample(views[0], 1), Sample(views[1], 0)])
    assert torch.equal(batch.views, torch.from_numpy(views))
    assert (batch.labels.tolist(), batch.labels.dtype, batch.failures) == ([1, 0], torch.float32, ())


def read(rows: list[Row], workers: int, start: int = 0) -> list[Batch]:
    return list(load_batches(images(rows), Order(PLAN, 3, start), workers, 2, pin=False))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_their_order(rows: list[Row], workers: int) -> None:
    batches = read(rows, workers)
    assert len(batches) == 12
    order = np.concatenate([permutation(24, 3, epoch) for epoch in range(2)])
    assert torch.cat([batch.labels for batch in batches]).tolist() == [rows[index].label for index in order]
    assert holds(rows[order[29]], batches[7].views[1, 0].numpy())


def test_workers_and_restarts_change_nothing(broken: list[Row]) -> None:
    here, there, later = read(broken, 0), read(broken, 2), read(broken, 2, start=4)
    for one, other in [*zip(here, there, strict=True), *zip(here[8:], later, strict=True)]:
        assert torch.equal(one.views, other.views)
        assert torch.equal(one.labels, other.labels)
        assert one.failures == other.failures
        assert one.views.shape == (4, 2, SIZE, SIZE, 3)
    named = {failure.name for batch in here for failure in batch.failures}
    assert named == {broken[index].name for index in (4, 7, 9)}


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_broken_images_is_a_sentence(rows: list[Row], workers: int, tmp_path: Path) -> None:
    empty = tmp_path / "empty.png"
    empty.touch()
    with pytest.raises(
        TableError, match=r"20 images in a row cannot be read, the last one images/\d+.png: check"
    ) as caught:
        read([replace(row, path=empty) for row in rows], workers)
    assert "\n" not in str(caught.value)

"""The file of features: nothing is taken for what it is not, nothing is lost, and a kill leaves what is whole."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spai_runtime.errors import OutputError
from spai_train.data.table import Row
from spai_train.detectors.probe import Probe, ProbeConfig
from spai_train.probing.features import Features, encoder_key, image_keys

KEYS = [bytes([index]) * 16 for index in range(1, 8)]
WIDTH = 5


def features(index: int) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    return np.arange(WIDTH, dtype=np.float32) + 10 * index


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """With the features of three images of four."""
    with Features(tmp_path / "features.npy", WIDTH, KEYS[:4]) as file:
        for index in (0, 2, 3):
            file.put(KEYS[index], features(index))
    return tmp_path / "features.npy"


def kept(path: Path, width: int = WIDTH) -> list[bool]:
    with Features(path, width, KEYS) as file:
        return [key in file for key in KEYS]


def test_what_was_put_is_there_again(path: Path) -> None:
    with Features(path, WIDTH, KEYS[:4]) as file:
        assert [key in file for key in KEYS] == [True, False, True, True, False, False, False]
        np.testing.assert_array_equal(file.take([KEYS[3], KEYS[0], KEYS[3]]), [features(3), features(0), features(3)])
        assert file.take([]).shape == (0, WIDTH)
    assert [found.name for found in path.parent.iterdir()] == ["features.npy"]


def test_numpy_reads_it(path: Path) -> None:
    rows = np.load(path, mmap_mode="r")
    assert rows.dtype.names == ("key", "features")
    np.testing.assert_array_equal(rows["features"][rows["key"].any(axis=1)], [features(index) for index in (0, 2, 3)])


def test_room_is_made_for_others_and_nothing_goes(path: Path) -> None:
    with Features(path, WIDTH, KEYS[3:]) as file:
        for index in range(4, 7):
            file.put(KEYS[index], features(index))
    with Features(path, WIDTH, KEYS[:1]) as file:
        there = [index for index, key in enumerate(KEYS) if key in file]
        assert there == [0, 2, 3, 4, 5, 6]
        np.testing.assert_array_equal(file.take([KEYS[index] for index in there]), [features(index) for index in there])
    assert len(np.load(path)) == 6, "the row that was free is taken"
    assert kept(path) == [True, False, True, True, True, True, True]
    assert len(np.load(path)) == 7


def test_an_image_that_is_named_twice_has_one_row(path: Path) -> None:
    with Features(path, WIDTH, KEYS[4:] * 9) as file:
        file.put(KEYS[4], features(4))
        file.put(KEYS[4], features(4))
    assert len(np.load(path)) == 3 + 3  # the row that is free is one of theirs


KILLED = """
import os, sys
import numpy as np
from pathlib import Path
from spai_train.probing.features import Features
from tests.train.test_probe_features import KEYS, WIDTH, features
file = Features(Path(sys.argv[1]), WIDTH, KEYS)
file.put(KEYS[4], features(4))
place = next(file._free)
file._rows["features"][place] = features(5)
os._exit(9)
"""


def test_a_kill_leaves_what_is_whole(path: Path) -> None:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    ran = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=root, env=environment, check=False)
    assert ran.returncode == 9
    assert kept(path) == [True, False, True, True, True, False, False]


def test_what_is_no_such_file_is_replaced(path: Path) -> None:
    assert kept(path, WIDTH + 1) == [False] * 7
    for content in (b"", b"not an array", path.read_bytes()[:-40], path.read_bytes()[:30]):
        path.write_bytes(content)
        assert kept(path) == [False] * 7
    np.save(path, np.zeros(3))
    assert kept(path) == [False] * 7
    np.save(path, np.array([object()]), allow_pickle=True)
    assert kept(path) == [False] * 7


def test_one_process_has_it_at_a_time(path: Path) -> None:
    with (
        Features(path, WIDTH, KEYS),
        pytest.raises(OutputError, match=r"another run is writing .*features\.npy\.lock: wait until it has ended"),
    ):
        Features(path, WIDTH, KEYS)
    assert kept(path)[0]


# --------------------------------------------------------------------------------------------------------------- keys


def test_an_encoders_key_is_all_that_features_depend_on() -> None:
    config = ProbeConfig.of("test_resnet")
    torch.manual_seed(0)
    model = Probe(config)
    first = encoder_key(model)
    with torch.no_grad():
        model.head.linear.weight += 1  # which reads the features
    assert encoder_key(model) == first
    for change in ({"resize": 161}, {"rule": "square"}, {"std": (0.2, 0.2, 0.2)}, {"normalised": True}):
        torch.manual_seed(0)
        assert encoder_key(Probe(replace(config, **change))) != first  # type: ignore[arg-type]
    for tensor in (model.encoder.backbone.conv1[0].weight, model.encoder.backbone.bn1.running_mean):
        before = tensor.detach().clone()
        with torch.no_grad():
            tensor.flatten()[0] += 1e-3
        assert encoder_key(model) != first
        with torch.no_grad():
            tensor.copy_(before)
    assert encoder_key(model) == first


def row(path: Path, label: int = 0) -> Row:
    return Row(path.name, path, label, "train", "camera")


def test_an_images_key_is_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path in paths:
        path.write_bytes(b"image")
        os.utime(path, ns=(10**18, 10**18))

    def keys(encoder: str = "a") -> list[bytes]:
        return image_keys(encoder, map(row, paths), None)

    first = keys()
    assert len({*first}) == 3
    assert image_keys("a", [row(path, label=1) for path in paths], None) == first == keys()
    assert not {*keys("b")} & {*first}
    monkeypatch.chdir(tmp_path)
    assert image_keys("a", [row(Path(path.name)) for path in paths], None) == first, "as another table names it"
    os.utime(paths[1], ns=(10**18, 10**18 + 1))
    paths[2].write_bytes(b"others")
    os.utime(paths[2], ns=(10**18, 10**18))
    assert [now == before for now, before in zip(keys(), first, strict=True)] == [True, False, False]


def test_an_image_in_a_store_changes_with_the_store(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    shards = [tmp_path / "shards" / f"{index}.tar" for index in range(2)]
    for shard in shards:
        shard.write_bytes(b"tar")
    rows = [row(tmp_path / name) for name in ("a.png", "b.png")]
    for store in (tmp_path / "shards", shards[1]):
        first = image_keys("a", rows, store)
        assert len({*first, *image_keys("a", rows, None)}) == 4
        assert image_keys("a", rows, store) == first
        shards[1].write_bytes(shards[1].read_bytes() + b"more")
        assert not {*image_keys("a", rows, store)} & {*first}

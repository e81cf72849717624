"""Data sets are found as their makers lay them out: every tree here is written file by file, with what it means."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from spai_train.data.layouts import DMID, CNNDetection, Folders, GenImage, Layout, LayoutError, Synthbuster, find

Told = tuple[str, int | None, str, str]


def plant(root: Path, names: Iterable[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def told(layout: Layout, root: Path) -> list[Told]:
    return [(one.path.relative_to(root).as_posix(), one.label, one.source, one.split) for one in layout]


def test_folders_are_searched_in_order_and_name_the_source(tmp_path: Path) -> None:
    plant(tmp_path, ("cam/b.JPG", "cam/a/z.png", "cam/notes.txt", "phone/c.tiff", "glide/x.webp", "glide/x.json"))
    layout = Folders([tmp_path / "phone", tmp_path / "cam"], [tmp_path / "glide"])
    assert told(layout, tmp_path) == [
        ("phone/c.tiff", 0, "phone", ""),
        ("cam/a/z.png", 0, "cam", ""),
        ("cam/b.JPG", 0, "cam", ""),
        ("glide/x.webp", 1, "glide", ""),
    ]


def test_the_name_of_a_folder_given_by_dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, ("cam/raw/a.png",))
    monkeypatch.chdir(tmp_path / "cam" / "raw")
    for dots, source in ((".", "raw"), ("..", "cam")):
        assert [one.source for one in Folders([Path(dots)], [])] == [source]


@pytest.mark.parametrize("inner", ["all", "all/fake", "link"])
def test_folders_within_another_are_refused(tmp_path: Path, inner: str) -> None:
    plant(tmp_path, ("all/fake/a.png",))
    (tmp_path / "link").symlink_to("all/fake")
    with pytest.raises(LayoutError, match=r"lies in .*all: name folders that are apart"):
        list(Folders([tmp_path / "all"], [tmp_path / inner]))


def test_genimage(tmp_path: Path) -> None:
    means: list[Told] = [
        ("ADM/imagenet_ai_0508_adm/train/ai/1.PNG", 1, "ADM", "train"),
        ("ADM/imagenet_ai_0508_adm/train/nature/n01.JPEG", 0, "imagenet", "train"),
        ("BigGAN/train/ai/2.png", 1, "BigGAN", "train"),
        ("BigGAN/val/ai/deeper/3.png", 1, "BigGAN", "val"),
        ("BigGAN/val/nature/n02.JPEG", 0, "imagenet", "val"),
        ("readme.png", None, "", ""),
    ]
    assert told(GenImage(plant(tmp_path, [name for name, *_ in means])), tmp_path) == means


def test_genimage_of_one_generator(tmp_path: Path) -> None:
    root = plant(tmp_path / "VQDM", ("val/ai/1.png", "val/nature/2.png"))
    assert told(GenImage(root), root) == [
        ("val/ai/1.png", 1, "VQDM", "val"),
        ("val/nature/2.png", 0, "imagenet", "val"),
    ]


CNNDETECTION: list[Told] = [
    ("crn/1_fake/1.png", 1, "crn", ""),
    ("stray.png", None, "", ""),
    ("test/crn/0_real/2.png", 0, "crn", "test"),
    ("test/progan/train/1_fake/3.png", 1, "progan", "test"),
    ("train/0_real/4.png", 0, "CNN", "train"),
    ("train/airplane/0_real/deep/5.png", 0, "airplane", "train"),
    ("train/train/1_fake/6.png", 1, "train", "train"),
    ("val/cat/1_fake/7.png", 1, "cat", "val"),
]


def test_cnndetection(tmp_path: Path) -> None:
    root = plant(tmp_path / "CNN", [name for name, *_ in CNNDETECTION])
    assert told(CNNDetection(root), root) == CNNDETECTION


def test_cnndetection_from_the_folder_of_a_split_or_of_a_category(tmp_path: Path) -> None:
    plant(tmp_path, [name for name, *_ in CNNDETECTION])
    assert told(CNNDetection(tmp_path / "train"), tmp_path) == [
        ("train/0_real/4.png", 0, "train", "train"),
        ("train/airplane/0_real/deep/5.png", 0, "airplane", "train"),
        ("train/train/1_fake/6.png", 1, "train", "train"),
    ]
    assert told(CNNDetection(tmp_path / "test"), tmp_path) == [
        ("test/crn/0_real/2.png", 0, "crn", "test"),
        ("test/progan/train/1_fake/3.png", 1, "progan", "test"),
    ]
    assert told(CNNDetection(tmp_path / "crn"), tmp_path) == [("crn/1_fake/1.png", 1, "crn", "")]


def write_dmid(folder: Path) -> DMID:
    plant(folder / "ldm", ("train/bird/1.png", "train/2.png", "train/notes.jpg", "train/real_coco/c1.png", "val/3.png"))
    plant(folder / "coco" / "train2017", ("c1.jpg", "c2.jpg", "c3.jpg"))
    plant(folder / "cnn" / "train", ("cat/0_real/7_1.png", "train/0_real/8.png"))
    for split, coco, lsun in (("train", "c1.jpg\nc2.jpg\n\n", "cat_7_1.png\r\n"), ("val", "c3.jpg", "train_8.png\n")):
        (folder / "ldm" / split / "real_coco.txt").write_text(coco, newline="")
        (folder / "ldm" / split / "real_lsun.txt").write_text(lsun, newline="")
    return DMID(folder / "ldm", folder / "coco", folder / "cnn")


def test_dmid(tmp_path: Path) -> None:
    layout = write_dmid(tmp_path)
    assert told(layout, tmp_path) == [
        ("ldm/train/2.png", 1, "latent-diffusion", "train"),
        ("ldm/train/bird/1.png", 1, "latent-diffusion", "train"),
        ("coco/train2017/c1.jpg", 0, "coco", "train"),
        ("coco/train2017/c2.jpg", 0, "coco", "train"),
        ("cnn/train/cat/0_real/7_1.png", 0, "lsun", "train"),
        ("ldm/val/3.png", 1, "latent-diffusion", "val"),
        ("coco/train2017/c3.jpg", 0, "coco", "val"),
        ("cnn/train/train/0_real/8.png", 0, "lsun", "val"),
    ]
    assert all(one.path.is_file() for one in layout)
    (tmp_path / "ldm" / "val").rename(tmp_path / "ldm" / "valid")
    assert [one.split for one in layout] == ["train"] * 5 + ["val"] * 3


def test_dmid_without_a_list(tmp_path: Path) -> None:
    layout = write_dmid(tmp_path)
    (tmp_path / "ldm" / "val" / "real_lsun.txt").unlink()
    with pytest.raises(LayoutError, match=r"cannot read .*val/real_lsun.txt: No such file"):
        list(layout)


PROMPTS = (
    '\ufeffdalle2,image name (matching Raise-1k)\n"a dog,\u2028\nrunning",r1t\n"a ""cat""",r2t\nagain,r1t\nlost,r3t\n'
)


def test_synthbuster(tmp_path: Path) -> None:
    plant(tmp_path / "sb", ("dalle2/r1t.png", "glide/r1t.png", "glide/thumb.jpg", "r9.png"))
    plant(tmp_path / "raise" / "tiff", ("r1t.tif", "r2t.TIF", "r7t.tif"))
    (tmp_path / "sb" / "prompts.csv").write_text(PROMPTS, encoding="utf-8")
    assert told(Synthbuster(tmp_path / "sb", tmp_path / "raise"), tmp_path) == [
        ("sb/dalle2/r1t.png", 1, "dalle2", "test"),
        ("sb/glide/r1t.png", 1, "glide", "test"),
        ("sb/r9.png", 1, "sb", "test"),
        ("raise/tiff/r1t.tif", 0, "raise", "test"),
        ("raise/tiff/r2t.TIF", 0, "raise", "test"),
        ("raise/tiff/r3t.tif", 0, "raise", "test"),
    ]


def test_synthbuster_with_other_prompts(tmp_path: Path) -> None:
    plant(tmp_path, ("sb/a.png", "raise/tiff/a.tif"))
    (tmp_path / "sb" / "prompts.csv").write_text("name\na\n")
    with pytest.raises(LayoutError, match="has no column `image name"):
        list(Synthbuster(tmp_path / "sb", tmp_path / "raise"))


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    plant(tmp_path, ("cam/a.png",))
    layouts: list[Layout] = [
        Folders([tmp_path / "cam"], [gone]),
        GenImage(gone),
        CNNDetection(gone),
        DMID(tmp_path, gone, tmp_path),
        Synthbuster(tmp_path, gone),
    ]
    for layout in layouts:
        with pytest.raises(LayoutError, match=r"there is no folder .*gone"):
            list(layout)


def test_nothing_where_it_was_expected_is_said_with_what_was(tmp_path: Path) -> None:
    plant(tmp_path, ("coco/train2017/a", "cnn/train/a", "empty/a.txt"))
    empty = tmp_path / "empty"
    with pytest.raises(LayoutError, match=r"no images; expected images below .*empty"):
        find(Folders([empty], []))
    with pytest.raises(LayoutError, match=r"no images; expected .*empty/\{train,val\}/ with .png"):
        find(DMID(empty, tmp_path / "coco", tmp_path / "cnn"))
    plant(empty, ("a.png", "ai/b.png"))
    for layout, wanted in (
        (GenImage(empty), r"<generator>/\{train,val\}/\{ai,nature\}"),
        (CNNDetection(empty), r"\{0_real,1_fake\}"),
    ):
        with pytest.raises(LayoutError, match=f"2 images, but none in a folder that tells its class; .*{wanted}"):
            find(layout)

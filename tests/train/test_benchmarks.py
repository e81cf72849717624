"""Benchmarks: each protocol on a toy tree that is laid out as its data are."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from spai_runtime.errors import UserError
from spai_train.data.layouts import LayoutError
from spai_train.data.perturb import Kind, Perturbation
from spai_train.evaluation.benchmark import NAMES, Tree, load
from spai_train.evaluation.metrics import METRICS
from spai_train.evaluation.preparation import Preparation
from tests.train.test_layouts import plant

SPAI = [
    *("dalle2", "dalle3", "firefly", "flux", "gigagan", "glide", "mjv5", "mjv61", "sd13", "sd14", "sd2", "sd3", "sdxl"),
]
SPAI_REAL = ["coco", "fodb", "imagenet", "openimages", "raise"]
SYNTHBUSTER = [
    *("dalle2", "dalle3", "firefly", "glide", "midjourney-v5", "stable-diffusion-1-3", "stable-diffusion-1-4"),
    *("stable-diffusion-2", "stable-diffusion-xl"),
]
OF_CATEGORIES = ["progan", "stylegan", "stylegan2", "cyclegan"]
OF_TWO_FOLDERS = ["biggan", "stargan", "gaugan", "deepfake", "seeingdark", "san", "crn", "imle"]
OF_LAION = ["ldm_200", "ldm_200_cfg", "ldm_100", "glide_100_27", "glide_50_27", "glide_100_10", "dalle"]
AIGC = [
    *("ADM", "biggan", "cyclegan", "DALLE2", "gaugan", "Glide", "Midjourney", "progan", "stable_diffusion_v_1_4"),
    *("stable_diffusion_v_1_5", "stargan", "stylegan", "stylegan2", "VQDM", "whichfaceisreal", "wukong"),
]
GENIMAGE = {"nature": 0, "ai": 1}
COSPY_REAL = {
    "mscoco": "train/sd-v1_4/mscoco2017/val2017",
    "flickr": "flickr30k",
    "cc3m": "test/Co-Spy-Bench/real_image_examples/CC3M",
    "textcaps": "test/Co-Spy-Bench/real_image_examples/TextCaps",
    "sbu": "test/Co-Spy-Bench/real_image_examples/SBU",
}


def tree(name: str, root: Path, names: Iterable[str] = ()) -> Tree:
    return Tree(name, load(name), plant(root, names))


def against(found: Tree) -> dict[str, list[tuple[str, ...]]]:
    """Each generator's real sources."""
    return found.benchmark.pairs.opponents(dict.fromkeys((row.source, row.label) for row in found.rows))


def test_every_benchmark_has_a_tree_here() -> None:
    assert set(NAMES) == {
        "spai", "commercial-tools", "synthwildx", "synthbuster", "universalfakedetect", "aigcdetect", "co-spy-bench",
        "dda-genimage", "dda-aigcdetect",
    }  # fmt: skip
    for name in NAMES:
        found = load(name)
        assert set(found.metrics) <= set(METRICS)
        assert found.title and found.source and found.root


def test_spai(tmp_path: Path) -> None:
    for kind, label, names in (("fake", 1, SPAI), ("real", 0, SPAI_REAL)):
        for name in names:
            lines = f"image,class,split\nsynthbuster/{name}/a.png,{label},test\nother/{name}.png,{label},train\n"
            (tmp_path / f"{kind}_{name}.csv").write_text(lines)
    (tmp_path / "more.csv").write_text("image,class\nb.png,1\n")
    found = tree("spai", tmp_path)
    assert {row.source for row in found.rows if row.label} == {f"fake_{name}" for name in SPAI}
    assert [row.path for row in found.rows if row.source == "fake_flux"] == [tmp_path / "synthbuster/flux/a.png"]
    reals = [(f"real_{name}",) for name in SPAI_REAL]
    assert against(found) == {f"fake_{name}": reals for name in SPAI}


def test_the_tables_of_clipdet(tmp_path: Path) -> None:
    lines = "filename,typ\nsynthbuster/dalle2/a.png,dalle2\nsynthbuster/firefly/b.png,firefly\nreal/c.png,real\n"
    (tmp_path / "commercial_tools.csv").write_text(lines)
    assert against(tree("commercial-tools", tmp_path)) == {"dalle2": [("real",)], "firefly": [("real",)]}
    (tmp_path / "list.csv").write_text("url,filename,typ\nhttps://a,dalle3/a.jpg,dalle3\nhttps://b,real/b.jpg,real\n")
    found = tree("synthwildx", tmp_path)
    assert [(row.path, row.label, row.source) for row in found.rows] == [
        (tmp_path / "dalle3/a.jpg", 1, "dalle3"),
        (tmp_path / "real/b.jpg", 0, "real"),
    ]


@pytest.mark.parametrize("reals", ["RAISEpng", "RAISE-1k/tiff"])
def test_synthbuster(tmp_path: Path, reals: str) -> None:
    images = [f"synthbuster/{name}/r0.png" for name in SYNTHBUSTER]
    found = tree("synthbuster", tmp_path, (*images, "synthbuster/prompts.csv", f"{reals}/r0.tif", f"{reals}/r1.tif"))
    assert against(found) == {name: [("raise",)] for name in SYNTHBUSTER}
    assert Counter(row.source for row in found.rows) == Counter([*SYNTHBUSTER, "raise", "raise"])
    assert found.missing == []


def test_of_two_folders_of_a_source_the_first_counts(tmp_path: Path) -> None:
    found = tree("synthbuster", tmp_path, ("synthbuster/glide/a.png", "RAISEpng/a.png", "RAISE-1k/tiff/a.tif"))
    assert [row.name for row in found.rows if row.label == 0] == ["RAISEpng/a.png"]
    assert found.missing == [name for name in found.benchmark.generated if name != "glide"]


def test_universalfakedetect(tmp_path: Path) -> None:
    images = [
        f"test/{name}/{category}/{kind}/1.png"
        for name in OF_CATEGORIES
        for category in ("cat", "dog")
        for kind in ("0_real", "1_fake")
    ]
    images += [f"test/{name}/{kind}/1.png" for name in OF_TWO_FOLDERS for kind in ("0_real", "1_fake")]
    images += [f"test/diffusion_datasets/{name}/1_fake/1.png" for name in (*OF_LAION, "guided")]
    images += [f"test/diffusion_datasets/{name}/0_real/1.jpg" for name in ("laion", "imagenet")]
    found = tree("universalfakedetect", tmp_path, images)
    own = {name: [(name,)] for name in (*OF_CATEGORIES, *OF_TWO_FOLDERS)}
    assert against(found) == {**own, **{name: [("laion",)] for name in OF_LAION}, "guided": [("imagenet",)]}
    assert sorted(row.name for row in found.rows) == sorted(images)
    assert found.missing == []


def test_a_generator_whose_real_images_are_not_there_is_not_measured(tmp_path: Path) -> None:
    images = ("test/diffusion_datasets/dalle/1_fake/1.png", "test/san/0_real/1.png", "test/san/1_fake/1.png")
    found = tree("universalfakedetect", tmp_path, images)
    assert against(found) == {"dalle": [], "san": [("san",)]}
    assert "laion" in found.missing


def test_aigcdetect(tmp_path: Path) -> None:
    images = [f"test/{name}/{kind}/1.png" for name in AIGC if name != "cyclegan" for kind in ("0_real", "1_fake")]
    images += [f"test/cyclegan/horse/{kind}/1.png" for kind in ("0_real", "1_fake")]
    found = tree("aigcdetect", tmp_path, images)
    assert against(found) == {name: [(name,)] for name in AIGC}
    assert sorted(row.name for row in found.rows) == sorted(images)


def test_aigcdetect_of_dda(tmp_path: Path) -> None:
    """All that CO-SPY's authors measure, and one generator more; real images stay as they are."""
    images = [f"test/{name}/{kind}/1.png" for name in (*AIGC, "sd_xl") for kind in ("0_real", "1_fake")]
    found = tree("dda-aigcdetect", tmp_path, images)
    assert against(found) == {name: [(name,)] for name in (*AIGC, "sd_xl")}
    assert found.missing == [] and found.short == {}
    assert found.benchmark.preparation == Preparation(Perturbation(Kind.JPEG, 96), "generated")


def test_genimage_of_dda(tmp_path: Path) -> None:
    """Its archives as they unpack, each in its generator's folder, or one beside the other; train is not looked at."""
    folders = ["Midjourney/imagenet_midjourney", "imagenet_ai_0419_sdv4", "BigGAN"]
    images = [f"{name}/{split}/{kind}/1.png" for name in folders for split in ("train", "val") for kind in GENIMAGE]
    found = tree("dda-genimage", tmp_path, images)
    names = ["Midjourney", "stable_diffusion_v_1_4", "BigGAN"]
    assert against(found) == {name: [(name,)] for name in names}
    assert {(row.name, row.label) for row in found.rows} == {
        (f"{name}/val/{kind}/1.png", label) for name in folders for kind, label in GENIMAGE.items()
    }
    assert len(found.missing) == 5
    assert found.benchmark.preparation.described == "jpeg 96, generated images"


def test_co_spy_bench(tmp_path: Path) -> None:
    generators = ["CompVis@ldm-text2im-large-256", "stabilityai@stable-diffusion-2", "black-forest-labs@FLUX.1-dev"]
    generators += ["stabilityai@stable-diffusion-2-1"]
    images = [f"test/Co-Spy-Bench/synthetic/{real}/{name}/0.png" for real in COSPY_REAL for name in generators]
    images += [f"{folder}/0.jpg" for folder in COSPY_REAL.values()]
    found = tree("co-spy-bench", tmp_path, images)
    names = [name.partition("@")[2] for name in generators]
    assert against(found) == {f"{real}/{name}": [(real,)] for real in COSPY_REAL for name in names}
    assert len(found.missing) == 5 * (22 - len(generators))
    assert found.benchmark.preparation == Preparation(Perturbation(Kind.JPEG, 95))
    assert (found.benchmark.first, found.benchmark.threshold) == (2000, 0.5)


def test_the_first_images_by_name(tmp_path: Path) -> None:
    images = [f"flickr30k/{index:05}.jpg" for index in range(2002)]
    found = tree("co-spy-bench", tmp_path, (*images, "test/Co-Spy-Bench/synthetic/flickr/segmind@tiny-sd/1.png"))
    assert [row.name for row in found.rows if row.label == 0] == images[:2000]
    assert found.short == {"flickr/tiny-sd": 1}


def test_the_digest_tells_other_images(tmp_path: Path) -> None:
    names = ["synthbuster/glide/a.png", "RAISEpng/a.png"]
    first = tree("synthbuster", tmp_path / "1", names).digest
    assert tree("synthbuster", tmp_path / "2", names).digest == first
    assert tree("synthbuster", tmp_path / "3", [*names, "RAISEpng/b.png"]).digest != first


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no benchmark synthbusted \(is it synthbuster\?\): there are aigcdetect, "):
        load("synthbusted")
    for images, said in (([], "no images"), (["RAISEpng/a.png"], "images of one class alone")):
        found = tree("synthbuster", tmp_path, images)
        with pytest.raises(LayoutError, match=f"has {said} of synthbuster: name a folder with synthbuster/ and RAISE"):
            _ = found.rows

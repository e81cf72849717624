"""spai-train probe, from a CSV to scores: features are timm's, nothing is computed twice, and what is wrong is said."""

import csv
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copy
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import nn

from spai_export.cli import main as spai_export
from spai_train.checkpoint import Card, load_checkpoint, save_checkpoint
from spai_train.cli import main
from spai_train.commands import pack
from spai_train.data.table import read_table
from spai_train.detectors import clipdet
from spai_train.detectors.clipdet import ClipDetConfig
from spai_train.detectors.community_forensics import CommunityForensics, CommunityForensicsConfig
from spai_train.probe import drawn
from spai_train.probing import extraction
from spai_train.probing.options import Fitting
from spai_train.torch_engine import TorchEngine, load_detector
from tests.golden import FOLDER, IMAGES
from tests.support.commands import Ran, Run
from tests.support.probing import backbone, features_of, weights_of
from tests.support.training import write_labelled

NAME = "test_resnet"
TRAIN, VALIDATION = 24, 12
Call = Callable[..., Ran]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_labelled(tmp_path / "data", train=TRAIN, validation=VALIDATION)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return weights_of(NAME, tmp_path_factory.mktemp("weights") / "timm.safetensors")


@pytest.fixture
def probe(table: Path, weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Call:
    """`spai-train probe` of `table` into `tmp_path / "run"`, on test_resnet unless another encoder is named."""

    def call(*arguments: object, encoder: bool = True, output: str = "run") -> Ran:
        capfd.readouterr()
        words: list[object] = ["probe", "--data", table, "--output", tmp_path / output, "--device", "cpu"]
        words += ["--backbone", NAME, "--pretrained", weights] if encoder else []
        code = main([str(word) for word in (*words, *arguments)])
        said = capfd.readouterr()
        return Ran(code, said.out, said.err)

    return call


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Views that torch was given, batch by batch, by the encoder."""
    found: list[int] = []
    compute = TorchEngine._compute

    def counted(self: TorchEngine, batch: NDArray[Any]) -> list[NDArray[Any]]:
        found.extend([len(batch)] * (batch.dtype == np.uint8))
        return compute(self, batch)

    monkeypatch.setattr(TorchEngine, "_compute", counted)
    return found


def images_of(table: Path, split: str) -> tuple[list[NDArray[np.uint8]], NDArray[np.int64]]:
    rows = read_table(table, split)
    return [np.asarray(Image.open(row.path)) for row in rows], np.array([row.label for row in rows])


def cached(folder: Path) -> NDArray[np.float32]:
    """The features in the one file that lies there, in any order."""
    (path,) = folder.glob("features-*.npy")
    rows = np.load(path)
    return np.asarray(rows["features"][rows["key"].any(axis=1)])


def head_of(path: Path) -> tuple[NDArray[np.float32], float]:
    state = load_file(path)
    return state["head.linear.weight"][0].numpy(), float(state["head.linear.bias"])


def test_from_a_csv_to_scores(probe: Call, table: Path, tmp_path: Path, run: Run) -> None:
    """Its features are those of timm's own model and transform; its layer is scikit-learn's on them."""
    ran = probe("--name", "mine")
    assert (ran.code, ran.stderr) == (0, "")
    (training, labels), (held_out, truth) = images_of(table, "train"), images_of(table, "val")
    features, others = (features_of(backbone(NAME), images) for images in (training, held_out))
    found = cached(tmp_path / "run")
    assert found.shape == (TRAIN + VALIDATION, features.shape[1])
    np.testing.assert_allclose(found, np.concatenate((features, others)), atol=1e-4)

    record = json.loads((tmp_path / "run" / "probe.json").read_text())
    assert record["images"] == {
        "train": {"real": 12, "generated": 12},
        "val": {"real": 6, "generated": 6},
        "skipped": 0,
    }
    mean, scale = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    scale[scale == 0] = 1
    model = LogisticRegression(C=record["C"], solver="newton-cholesky", tol=1e-10).fit(
        (features - mean) / scale, labels
    )
    expected = model.decision_function((others - mean) / scale)
    weight, bias = head_of(tmp_path / "run" / "probe.safetensors")
    np.testing.assert_allclose(others @ weight + bias, expected, atol=0.02 * np.abs(expected).max())
    assert record["val_auc"] == roc_auc_score(truth, expected)
    assert record["val_accuracy"] == np.mean((expected > 0) == truth)

    assert spai_export(["--ckpt", str(tmp_path / "run" / "probe.safetensors"), "--output", str(tmp_path / "mine")]) == 0
    scored = run(table, "--split", "val", "--engine", tmp_path / "mine", "--device", "cpu")
    rows = list(csv.DictReader(scored.stdout.splitlines()))
    assert (scored.code, len(rows)) == (0, VALIDATION)
    in_torch = load_detector(tmp_path / "run" / "probe.safetensors", "cpu")
    wanted = [in_torch.score(image).logit for image in held_out]
    assert [float(row["logit"]) for row in rows] == pytest.approx(wanted, abs=1e-4)
    assert wanted == pytest.approx((others @ weight + bias).tolist(), abs=1e-3)
    manifest = in_torch.manifest
    assert (manifest.name, manifest.detector, manifest.threshold.value) == ("mine", "probe", 0.5)
    assert manifest.threshold.source.startswith(
        "not calibrated: the middle of a logistic regression on 12 real and 12 "
    )


def test_the_summary(probe: Call, weights: Path, table: Path, tmp_path: Path) -> None:
    lines = probe().stdout.splitlines()
    assert lines[0] == "trained on 12 real and 12 AI-generated images, chosen on 6 real and 6 AI-generated images"
    assert lines[1] == f"96 features of {NAME} with the weights {weights}; computed for 36 images, there for 0"
    assert re.fullmatch(r"logistic regression with C = \S+, whose log-loss on val is the least: \S+", lines[2])
    assert re.fullmatch(r"val: AUC \S+, accuracy \S+ at the threshold 0\.5, which is not calibrated", lines[3])
    checkpoint = tmp_path / "run" / "probe.safetensors"
    assert lines[4:6] == [str(checkpoint), f"next: spai-export --ckpt {checkpoint} --output probe"]
    assert lines[6] == (
        f"then: spai-train evaluate {table} --split val --engine probe --calibrate fpr=0.05 "
        f"--output {tmp_path / 'run' / 'calibration'}"
    )
    assert len(lines) == 7


def test_the_summary_names_the_split_for_calibration(probe: Call, table: Path) -> None:
    """Where the table has one, which chose nothing: neither the weights nor the penalty."""
    *lines, last = table.read_text().splitlines()
    name, label, *_ = last.split(",")
    table.write_text("\n".join([*lines, last, f"{name},{label},calibration"]) + "\n")
    assert f"evaluate {table} --split calibration --engine probe" in probe().stdout


# ----------------------------------------------------------------------------------------------- nothing is done twice


def test_a_repeated_run_computes_nothing(probe: Call, tmp_path: Path, calls: list[int]) -> None:
    probe()
    assert sum(calls) == TRAIN + VALIDATION
    written = (tmp_path / "run" / "probe.safetensors").read_bytes()
    calls.clear()
    assert "computed for 0 images, there for 36" in probe().stdout
    assert calls == []
    assert (tmp_path / "run" / "probe.safetensors").read_bytes() == written
    assert "computed for 0 images, there for 16" in probe("--pairs", 2).stdout
    assert "computed for 0 images, there for 36" in probe("--classifier", "svm").stdout


def test_what_changed_is_computed_anew(probe: Call, table: Path, tmp_path: Path, calls: list[int]) -> None:
    probe()
    calls.clear()
    images = table.parent / "images"
    for name, of in (("000.png", "001.png"), ("new.png", "002.png")):
        (images / name).write_bytes((images / of).read_bytes())
    with table.open("a") as file:
        file.write("images/new.png,0,train,camera\nimages/003.png,1,val,grid\n")
    assert "computed for 2 images, there for 36" in probe().stdout
    assert sum(calls) == 2
    features = cached(tmp_path / "run")
    training, _ = images_of(table, "train")
    wanted = features_of(backbone(NAME), training)
    assert all(np.abs(features - row).max(axis=1).min() < 1e-4 for row in wanted)


def test_another_encoder_is_not_taken_for_it(probe: Call, weights: Path, tmp_path: Path) -> None:
    probe()
    state = load_file(weights)
    state["conv1.0.weight"] *= 1.5
    save_file(state, tmp_path / "other.safetensors")
    other = ("--backbone", NAME, "--pretrained", tmp_path / "other.safetensors")
    for arguments in (other, (*other, "--normalise")):
        assert "computed for 36 images, there for 0" in probe(*arguments, encoder=False).stdout
    assert len(list((tmp_path / "run").glob("features-*.npy"))) == 3
    assert "computed for 0 images, there for 36" in probe().stdout


def test_an_interrupted_run_goes_on(probe: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe(output="whole").code == 0
    embeddings = extraction.embeddings

    def interrupted(*arguments: Any, **options: Any) -> Any:
        for index, one in enumerate(embeddings(*arguments, **options)):
            if index == 10:
                raise KeyboardInterrupt
            yield one

    with monkeypatch.context() as patched:
        patched.setattr(extraction, "embeddings", interrupted)
        assert probe().code == 130
    assert not (tmp_path / "run" / "probe.safetensors").exists()
    assert "computed for 26 images, there for 10" in probe().stdout
    whole, run = (tmp_path / name / "probe.safetensors" for name in ("whole", "run"))
    assert whole.read_bytes() == run.read_bytes()


def test_images_in_a_store(probe: Call, table: Path, tmp_path: Path) -> None:
    probe(output="files")
    pack.run([table], tmp_path / "images.lmdb")
    for path in (table.parent / "images").iterdir():
        path.unlink()
    ran = probe("--store", tmp_path / "images.lmdb")
    assert (ran.code, "computed for 36 images" in ran.stdout) == (0, True)
    assert ran.stdout.splitlines()[-1].count(f"--store {tmp_path / 'images.lmdb'}") == 1
    np.testing.assert_array_equal(cached(tmp_path / "files"), cached(tmp_path / "run"))


# ---------------------------------------------------------------------------------------------- other linear detectors


@pytest.fixture
def forensics(tmp_path: Path) -> Path:
    """A small detector with a linear head, of random weights."""
    torch.manual_seed(0)
    model = CommunityForensics(CommunityForensicsConfig(side=64, resize=72, patch_size=8, width=64, depth=2))
    for parameter in model.encoder.parameters():
        nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    save_checkpoint(tmp_path / "theirs.safetensors", model, Card("theirs", "beware", 0.2, "a guess"))
    return tmp_path / "theirs.safetensors"


@pytest.mark.parametrize("classifier", ["logistic", "svm"])
def test_the_layer_of_another_detector(probe: Call, forensics: Path, tmp_path: Path, classifier: str) -> None:
    ran = probe("--start", forensics, "--classifier", classifier, "--pairs", 10, encoder=False)
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.stdout.startswith("trained on 10 real and 10 AI-generated images")
    before, after = (load_checkpoint(path) for path in (forensics, tmp_path / "run" / "probe.safetensors"))
    assert (after.detector, after.config) == (before.detector, before.config)
    assert (after.card.name, after.card.notice, after.card.threshold) == ("theirs", "beware", 0.5)
    assert ("linear SVM" in after.card.threshold_source) == (classifier == "svm")
    moved = {name for name in before.state if not torch.equal(before.state[name], after.state[name])}
    assert moved == {"head.linear.weight", "head.linear.bias"}


@dataclass(frozen=True)
class SmallClipDet(ClipDetConfig):
    """Of the golden tower."""

    width: int = 128
    depth: int = 2


def test_the_linear_svm_of_clipdet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On features that upstream's code computed, from the tower alone and from a published layer and its tower."""
    monkeypatch.setattr(clipdet, "SPEC", replace(clipdet.SPEC, config=SmallClipDet))
    layer, tower = FOLDER / "clipdet" / "clipdet_small.pth", FOLDER / "clip_small.safetensors"
    with np.load(layer.with_name("clipdet_small_expected.npz")) as numbers:
        wanted = np.stack([numbers[f"{index}/features"] for index in range(len(IMAGES))])
        order = np.argsort([float(numbers[f"{index}/logit"][0]) for index in range(len(IMAGES))])
    rows = [f"{IMAGES[index]},{place // 4},{('train', 'val')[place % 2]}" for place, index in enumerate(order)]
    (tmp_path / "golden.csv").write_text("\n".join(["image,class,split", *rows]) + "\n")
    for words in (["--detector", "clipdet", "--pretrained", tower], ["--start", layer, "--tower", tower]):
        output = tmp_path / str(words[0])
        fixed = ["probe", "--data", tmp_path / "golden.csv", "--output", output, "--classifier", "svm", "--pairs", 2]
        assert main([str(word) for word in (*fixed, *words)]) == 0
        np.testing.assert_allclose(cached(output), wanted[[*order[::2], *order[1::2]]], rtol=1e-5, atol=1e-5)
        assert load_checkpoint(output / "probe.safetensors").detector.name == "clipdet"


def test_a_detector_whose_backbone_is_loaded(probe: Call, weights: Path, tmp_path: Path) -> None:
    """Through the `Training` of its row, which is how one that is not `probe` gets its encoder without a checkpoint."""
    ran = probe("--detector", "probe")
    assert ran.code == 0
    ran = probe("--detector", "spai", "--pretrained", weights, encoder=False)
    assert (ran.code, "holds no tensor under `encoder.`" in ran.stderr) == (2, True)
    ran = probe("--start", tmp_path / "run" / "probe.safetensors", "--detector", "probe", encoder=False)
    assert (ran.code, "computed for 0 images, there for 36" in ran.stdout) == (0, True)


def test_fit_trains_the_backbone_too(probe: Call, table: Path, tmp_path: Path) -> None:
    probe()
    recipe = {"views": 1, "batch_size": 8, "schedule": {"epochs": 1}, "data": {"workers": 0}, "trackers": []}
    (tmp_path / "recipe.yaml").write_text(json.dumps({"fit": recipe}))  # which is YAML
    words = ["fit", "--detector", "probe", "--recipe", tmp_path / "recipe.yaml", "--data", table, "--device", "cpu"]
    words += ["--start", tmp_path / "run" / "probe.safetensors", "--output", tmp_path / "fit", "--set", "freeze=false"]
    assert main([str(word) for word in words]) == 0
    before, after = (load_checkpoint(tmp_path / name) for name in ("run/probe.safetensors", "fit/best.safetensors"))
    assert (after.detector.name, after.config) == ("probe", before.config)
    assert not torch.equal(
        after.state["encoder.backbone.conv1.0.weight"], before.state["encoder.backbone.conv1.0.weight"]
    )


def test_pairs_are_drawn_from_the_seed(table: Path) -> None:
    rows = read_table(table, "train")
    found = [drawn(rows, Fitting(pairs=5, seed=seed)) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    for chosen in found:
        assert [row.label for row in chosen].count(0) == [row.label for row in chosen].count(1) == 5
        assert chosen == [row for row in rows if row in chosen]
    assert drawn(rows, Fitting()) == rows


# -------------------------------------------------------------------------------------------------------- what is wrong


def test_what_cannot_be_read_is_named_and_left_out(probe: Call, table: Path) -> None:
    images = table.parent / "images"
    (images / "003.png").write_text("no image")
    (images / "030.png").unlink()
    ran = probe()
    assert ran.code == 3
    assert [line.split(": ")[0] for line in ran.stderr.splitlines()] == [
        "skipped images/003.png",
        "skipped images/030.png",
    ]
    first = "trained on 12 real and 11 AI-generated images, chosen on 5 real and 6 AI-generated images; "
    assert ran.stdout.startswith(f"{first}2 could not be read and were left out\n")


Change = Callable[[Path], None]


def rewritten(change: Callable[[list[str]], list[str]]) -> Change:
    def call(table: Path) -> None:
        table.write_text("\n".join(change(table.read_text().splitlines())) + "\n")

    return call


def without_images(table: Path) -> None:
    for row in read_table(table, "val"):
        row.path.unlink()


def without_generated(table: Path) -> None:
    for row in read_table(table, "val"):
        if row.label:
            row.path.unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (rewritten(lambda lines: lines[:25]), "has no row in the split val; it has: train"),
        (
            rewritten(lambda lines: [line for line in lines if ",1,val" not in line]),
            "the split val holds real images al",
        ),
        (
            rewritten(lambda lines: [line for line in lines if ",0,train" not in line]),
            "the split train holds AI-genera",
        ),
        (rewritten(lambda lines: [line.rsplit(",", 2)[0] for line in lines]), "a table has no column `split`: add one"),
        (without_images, "none of the 12 images of the split val can be read, images/024.png for one: "),
        (without_generated, "what can be read of the split val holds real images alone; training needs both classes"),
    ],
)
def test_tables_that_will_not_do(probe: Call, table: Path, tmp_path: Path, change: Change, said: str) -> None:
    change(table)
    ran = probe()
    assert (ran.code, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert said in ran.stderr
    assert not (tmp_path / "run" / "probe.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name an encoder: --backbone NAME of timm, --detector NAME with --pretrained, or --start CHECKPOINT"),
        (["--backbone", "resnet_18"], "timm has no model resnet_18; did you mean resnet18, "),
        (["--backbone", "hf-hub:a/b"], "timm has no model hf-hub:a/b"),
        (
            ["--backbone", NAME, "--pretrained", "{folder}/none.pth"],
            "none.pth is not a checkpoint that torch can read: ",
        ),
        (
            ["--backbone", NAME, "--detector", "spai"],
            "--backbone is for the detector probe: leave --detector spai or it",
        ),
        (["--detector", "sapi"], "there is no detector sapi; known are: spai, "),
        (["--detector", "spai"], "--detector spai needs the weights of its backbone: give --pretrained or --start"),
        (["--detector", "community-forensics", "--normalise", "--pretrained", "timm"], "--normalise is for --backbone"),
        (["--start", "{spai}"], "the head of spai is no linear layer, which a probe fits: train it with fit"),
        (["--start", "{spai}", "--detector", "probe"], "is a checkpoint of spai, not of probe: give --detector spai"),
        (
            ["--start", "{spai}", "--backbone", NAME],
            "--start has an encoder of its own: leave --backbone, --pretrained ",
        ),
        (
            ["--backbone", NAME, "--pairs", "13", "--pretrained", "{weights}"],
            "there are 12 real and 12 AI-generated ones",
        ),
        (["--backbone", NAME, "--classifier", "forest"], "Invalid value for '--classifier'"),
    ],
)
def test_what_will_not_do_is_one_sentence(
    probe: Call, tiny_checkpoint: Path, weights: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    words = [word.format(folder=tmp_path, spai=tiny_checkpoint, weights=weights) for word in arguments]
    ran = probe(*words, encoder=False)
    assert (ran.code, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert said in ran.stderr
    assert not (tmp_path / "run").exists()


def test_weights_that_cannot_be_downloaded(probe: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm  # noqa: PLC0415

    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        if pretrained:
            raise OSError("the hub is away\nfor today")
        model: nn.Module = create(name, **options)
        return model

    monkeypatch.setattr(timm, "create_model", offline)
    ran = probe("--backbone", NAME, encoder=False)
    assert (ran.code, ran.stderr.count("\n")) == (2, 1)
    assert "cannot download test_resnet.r160_in1k from timm's hub: the hub is away; or give a file as" in ran.stderr


def test_a_probe_says_its_own_word(probe: Call, tmp_path: Path) -> None:
    assert probe("--positive", "edited").code == 0
    assert load_checkpoint(tmp_path / "run" / "probe.safetensors").card.positive == "edited"
    ran = probe("--positive", "real")
    assert (ran.code, ran.stderr.startswith("spai-train: --positive real: give a word of small letters")) == (2, True)


def test_clipdets_svm(probe: Call, tmp_path: Path) -> None:
    """On the features of its tower, which the published layer of 10,000 pairs was fitted to as well."""
    copy(FOLDER / "clipdet" / "clipdet_small.pth", tmp_path / "weights.pth")
    torch.save(load_file(FOLDER / "clip_small.safetensors"), tmp_path / "open_clip_pytorch_model.bin")
    ran = probe("--start", tmp_path / "weights.pth", "--classifier", "svm", "--pairs", 8, encoder=False)
    assert (ran.code, ran.stderr) == (0, "")
    after = load_checkpoint(tmp_path / "run" / "probe.safetensors")
    before = load_checkpoint(tmp_path / "weights.pth")
    assert (after.detector.name, after.config) == ("clipdet", before.config)
    moved = {name for name in before.state if not torch.equal(before.state[name].float(), after.state[name])}
    assert moved == {"head.linear.weight", "head.linear.bias"}

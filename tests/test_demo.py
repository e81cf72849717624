"""The demo's recipe at a tiny size: it runs, its numbers follow from its seed, and its report holds what it should."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from spai_train.checkpoint import load_checkpoint
from spai_train.cli import main
from spai_train.data.simulate import REAL
from spai_train.demo import Outcome, run_demo
from spai_train.recipe import DEMO, Recipe, RecipeError, load_recipe
from spai_train.report import as_json, as_markdown
from spai_train.sets import ImageSets, draw_sets

TINY = """
seed: 3
workers: 1
seen: [{upsampling: laplacian, factor: 4}, {upsampling: transposed, factor: 8}]
unseen: [{upsampling: bilinear, factor: 4}]
generator: {width: 8, steps: 2, batch_size: 2, crops: 6, crop_size: 32}
finish: {sides: [64, 72]}
count: {train: 8, test: 6, calibration: 6, held_out: 4}
model: {tile_size: 32, tile_stride: 32, mask_radius: 4, patch_size: 8, width: 24, depth: 2, heads: 2, blocks: [0, 1],
  projection: 8, attention_width: 8, attention_heads: 2, dropout: 0.1, drop_path: 0.0}
patches: 1000
tokens: 8
schedule: {epochs: 2, batch_size: 8}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(TINY)
    return load_recipe(path)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def outcome(recipe: Recipe, output: Path) -> Outcome:
    return run_demo(recipe, output, lambda _: None)


@pytest.fixture(scope="module")
def sets(recipe: Recipe) -> ImageSets:
    torch.manual_seed(0)
    generators = {spec.name: spec.build(8).eval() for spec in (*recipe.seen, *recipe.unseen)}
    return draw_sets(recipe, generators)


def numbers(outcome: Outcome) -> dict[str, object]:
    return {name: value for name, value in as_json(outcome).items() if name != "seconds"}


def test_two_runs_give_the_same_numbers(recipe: Recipe, outcome: Outcome, output: Path, tmp_path: Path) -> None:
    again = run_demo(recipe, tmp_path, lambda _: None)
    assert numbers(again) == numbers(outcome)
    first, second = (load_checkpoint(folder / "demo.safetensors").state for folder in (output, tmp_path))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_checkpoint_carries_its_card_and_threshold(outcome: Outcome, output: Path) -> None:
    checkpoint = load_checkpoint(output / "demo.safetensors")
    assert checkpoint.card.name == "spai-demo"
    assert "no verdict on real photographs" in checkpoint.card.notice
    assert checkpoint.card.threshold == outcome.threshold
    assert checkpoint.card.threshold_source == (
        "calibrated to at most 5% false positives on 6 held-out simulated real images, as PNG and as JPEG"
    )
    assert checkpoint.model().config == outcome.recipe.model


def test_the_threshold_holds_for_each_format(outcome: Outcome) -> None:
    rates = {name: interval.value for name, interval in outcome.false_positives.items()}
    assert list(rates) == [
        f"{part}, {form}" for part in ("calibration", "held-out", "test") for form in ("PNG", "JPEG")
    ]
    assert max(rates["calibration, PNG"], rates["calibration, JPEG"]) <= 0.05


def test_report_has_every_detector_on_every_set(outcome: Outcome) -> None:
    report = as_json(outcome)
    detectors = ["SPAI", "random backbone", "colour", "Laplacian energy", "file size", "radial spectrum"]
    assert list(report["auc"]) == detectors
    for aucs in report["auc"].values():
        assert list(aucs) == ["seen, PNG", "unseen, PNG", "seen, JPEG", "unseen, JPEG"]
        for interval in aucs.values():
            assert 0 <= interval["low"] <= interval["value"] <= interval["high"] <= 1
    assert set(report["seconds"]) == {"generators", "images", "detectors", "baselines", "evaluation"}
    assert not re.search(r"/(root|home|tmp|work)/", json.dumps(report))


def test_markdown_table_has_the_reports_numbers(outcome: Outcome) -> None:
    table = as_markdown(outcome)
    for name, aucs in outcome.aucs.items():
        assert f"| {name} | {' | '.join(str(interval) for interval in aucs.values())} |" in table


def test_sample_images_are_of_both_classes_and_formats(outcome: Outcome, output: Path) -> None:
    names = sorted(path.name for path in (output / "samples").iterdir())
    assert names == sorted(outcome.samples)
    assert {(name.split("_")[0], Path(name).suffix) for name in names} == {
        (label, suffix) for label in ("real", "generated") for suffix in (".png", ".jpg")
    }


def test_sets_are_as_large_as_asked_and_share_no_image(recipe: Recipe, sets: ImageSets) -> None:
    assert len(sets.train) == 2 * 2 * recipe.count.train  # two classes, two formats
    assert sum(sample.generated for sample in sets.train) == len(sets.train) // 2
    assert {key: len(samples) for key, samples in sets.test.items()} == {
        (group, form): 6 for group in ("real", "seen", "unseen") for form in ("PNG", "JPEG")
    }
    assert {form: len(samples) for form, samples in sets.calibration.items()} == {"PNG": 6, "JPEG": 6}
    assert {form: len(samples) for form, samples in sets.held_out.items()} == {"PNG": 4, "JPEG": 4}
    parts = (sets.calibration, sets.held_out, sets.test)
    everything = [*sets.train, *(sample for part in parts for samples in part.values() for sample in samples)]
    assert len({sample.content for sample in everything}) == len(everything)


def test_unseen_generators_are_in_their_test_set_alone(sets: ImageSets) -> None:
    assert {sample.source for sample in sets.train} == {REAL, "laplacian-x4", "transposed-x8"}
    assert {sample.source for sample in sets.test["unseen", "PNG"]} == {"bilinear-x4"}
    assert {sample.source for part in (sets.calibration, sets.held_out) for s in part.values() for sample in s} == {
        REAL
    }
    assert [{sample.suffix for sample in samples} for samples in sets.calibration.values()] == [{".png"}, {".jpg"}]


def test_published_recipe_keeps_unseen_generators_unseen() -> None:
    recipe = load_recipe(DEMO)
    assert {spec.upsampling for spec in recipe.unseen} == {"bilinear", "shuffle"}
    assert not {spec.upsampling for spec in recipe.seen} & {"bilinear", "shuffle"}
    assert recipe.false_positives == 0.05
    assert (recipe.model.width, recipe.model.depth, recipe.model.blocks) == (192, 4, (0, 1, 2, 3))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"epoch": 3}, "Recipe has no field `epoch`"),
        ({"model": {"widht": 3}}, "SPAIConfig has no field `widht`"),
        ({"seed": "three"}, "Expected `int`, got `str`"),
        ({"count": {"train": 3}}, "missing required field"),
    ],
)
def test_a_wrong_recipe_is_one_sentence(
    change: dict[str, object], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(TINY) | change))
    with pytest.raises(RecipeError, match=re.escape(complaint)):
        load_recipe(path)
    assert main(["demo", "--output", str(tmp_path / "out"), "--recipe", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("spai-train: ")
    assert complaint in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("content", "complaint"), [("a: [", "is not YAML"), (None, "No such file")])
def test_an_unreadable_recipe_is_one_sentence(content: str | None, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RecipeError, match=complaint):
        load_recipe(path)


def test_simulate_writes_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    code = main(["simulate", str(tmp_path / "images"), "--count", "6", "--seed", "1", "--recipe", str(path)])
    assert code == 0
    assert Path(capsys.readouterr().out.strip()).read_text().startswith("image,class,split\nimages/000000_real.")


def test_an_output_that_cannot_be_made_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, output = tmp_path / "tiny.yaml", tmp_path / "taken"
    path.write_text(TINY)
    output.write_text("a file")
    assert main(["demo", "--output", str(output), "--recipe", str(path)]) == 2
    assert capsys.readouterr().err == f"spai-train: cannot write {output}: File exists\n"


def test_without_torch_the_command_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('No module named torch', name='torch')")
    command = [sys.executable, "-c", "import sys; from spai_train.cli import main; sys.exit(main())", "demo"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), *sys.path))}
    done = subprocess.run([*command, "--output", "x"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "spai-train: torch is not installed: pip install 'spai-toolkit[train]'\n"
    assert not done.stdout

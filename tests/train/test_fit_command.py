"""spai-train fit and pretrain: options → recipe.yaml, what is said, exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from spai_train.checkpoint import load_checkpoint
from spai_train.cli import main
from spai_train.training.task import Outcome
from tests.support.commands import Ran
from tests.support.training import MODEL, metrics_of, write_labelled

SMALL = {
    "fit": {"model": MODEL, "initial": "fan_in", "views": 1, "trackers": []},
    "pretrain": {"model": MODEL, "trackers": []},
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A file of recipes that take a second."""
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


@pytest.fixture
def train(capfd: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: object) -> Ran:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        return Ran(code, *capfd.readouterr())

    return call


def options(recipe: Path, table: Path, output: Path) -> list[object]:
    quick = ("--epochs", 2, "--batch-size", 8, "--workers", 0, "--device", "cpu")
    return ["--recipe", recipe, "--data", table, "--output", output, *quick]


def test_fit_says_its_best_epoch_and_where_it_lies(train: Any, recipe: Path, table: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    ran = train("fit", *options(recipe, table, output), "--set", "optimizer.learning_rate=3e-3")
    history = metrics_of(output)
    best = min(history, key=lambda entry: entry["val_loss"])
    first, second = ran.stdout.splitlines()
    assert ran.code == 0
    assert first.startswith(f"best epoch {best['epoch']} of 2: val_loss {best['val_loss']:.4g}, val_auc ")
    assert second == str(output / "best.safetensors")
    assert Path(second).is_file()
    said = ran.stderr.splitlines()
    assert said[0].startswith("24 images (12 real, 12 AI-generated) for training, 12 images")
    assert [line.split(":")[0] for line in said[1:]] == [
        "learning rates of steps of 8 images",
        "epoch 1 of 2",
        "epoch 2 of 2",
    ]


def test_pretrain_says_its_loss_and_where_it_lies(train: Any, recipe: Path, table: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    ran = train("pretrain", *options(recipe, table, output))
    assert ran.code == 0
    assert ran.stdout == f"epoch 2: loss {metrics_of(output)[-1]['train_loss']:.4g}\n{output / 'last.pth'}\n"
    assert (output / "last.pth").is_file()


@pytest.mark.parametrize("command", ["fit", "pretrain"])
@pytest.mark.parametrize("first", [True, False])
def test_one_of_several_processes_says_how_it_ended(
    command: str, first: bool, train: Any, recipe: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = {"epoch": 1.0, "val_loss": 0.5, "train_loss": 0.5}
    monkeypatch.setattr(f"spai_train.{command}.{command}", lambda *_, **__: Outcome([best], best, False, first))
    ran = train(command, *options(recipe, table, tmp_path / "run"))
    assert (ran.code, len(ran.stdout.splitlines())) == (0, 2 * first)


def test_every_option_is_a_key_of_the_recipe(train: Any, recipe: Path, table: Path, tmp_path: Path) -> None:
    train("pretrain", *options(recipe, table, tmp_path / "pre"))
    (table.parent / "other.csv").write_text("image,class\nimages/000.png,0\nimages/001.png,1\n")
    given = {
        "--validation": table,
        "--test-csv": table.parent / "other.csv",
        "--validation-batch-size": 3,
        "--root": table.parent,
        "--pretrained": tmp_path / "pre" / "last.pth",
        "--learning-rate": 0.002,
        "--patience": 1,
        "--precision": "bf16",
        "--seed": 7,
        "--set": "stopping.metric=val_auc",
    }
    flat = [part for pair in given.items() for part in pair]
    ran = train("fit", *options(recipe, table, tmp_path / "run"), *flat)
    assert ran.code == 0, ran.stderr
    written = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["fit"]
    assert written["data"] == {
        "tables": [str(table)],
        "validation": [str(table)],
        "tests": [str(table.parent / "other.csv")],
        "root": str(table.parent),
        "store": None,
        "train_split": "train",
        "validation_split": "val",
        "test_split": "test",
        "workers": 0,
        "prefetch": 2,
    }
    assert (written["schedule"]["epochs"], written["batch_size"], written["device"]) == (2, 8, "cpu")
    assert written["pretrained"] == str(tmp_path / "pre" / "last.pth")
    assert (written["optimizer"]["learning_rate"], written["precision"], written["seed"]) == (0.002, "bf16", 7)
    assert written["validation_batch_size"] == 3
    assert written["stopping"] == {"metric": "val_auc", "patience": 1, "min_delta": 0.0}
    assert written["model"] == MODEL | {key: written["model"][key] for key in written["model"].keys() - MODEL.keys()}


def test_a_detector_is_gone_on_from_and_a_store_read(train: Any, recipe: Path, table: Path, tmp_path: Path) -> None:
    first, second, store = tmp_path / "one", tmp_path / "two", tmp_path / "images.lmdb"
    assert train("pack", table, "--output", store).code == 0
    assert train("fit", *options(recipe, table, first)).code == 0
    ran = train("fit", *options(recipe, table, second), "--start", first / "best.safetensors", "--store", store)
    written = yaml.safe_load((second / "recipe.yaml").read_text())["fit"]
    assert ran.code == 0, ran.stderr
    assert (written["start"], written["data"]["store"]) == (str(first / "best.safetensors"), str(store))


def named(run: Path) -> str:
    return load_checkpoint(run / "best.safetensors").card.name


def test_a_detector_is_called_as_its_folder_or_as_the_user_says(
    train: Any, recipe: Path, table: Path, tmp_path: Path
) -> None:
    short = ["--recipe", recipe, "--data", table, "--batch-size", 24, "--epochs", 1, "--workers", 0]
    assert train("fit", *short, "--output", tmp_path / "mine").code == 0
    assert train("fit", *short, "--output", tmp_path / "other", "--name", "Our detector").code == 0
    assert (named(tmp_path / "mine"), named(tmp_path / "other")) == ("mine", "Our detector")
    (tmp_path / "mine").rename(tmp_path / "moved")
    assert train("fit", *short, "--output", tmp_path / "moved", "--resume").code == 0


def test_the_name_in_a_recipe_stays(train: Any, recipe: Path, table: Path, tmp_path: Path) -> None:
    recipe.write_text(yaml.safe_dump({"fit": {**SMALL["fit"], "name": "theirs"}}))
    assert train("fit", *options(recipe, table, tmp_path / "run"), "--set", "schedule.epochs=1").code == 0
    assert named(tmp_path / "run") == "theirs"


def test_set_wins_over_an_option(train: Any, recipe: Path, table: Path, tmp_path: Path) -> None:
    ran = train("fit", *options(recipe, table, tmp_path / "run"), "--set", "schedule.epochs=1")
    assert ran.stdout.startswith("best epoch 1 of 1: ")


def test_a_run_is_resumed_by_an_option(train: Any, recipe: Path, table: Path, tmp_path: Path) -> None:
    arguments = options(recipe, table, tmp_path / "run")
    first = train("fit", *arguments)
    again = train("fit", *arguments)
    assert (again.code, again.stdout) == (2, "")
    assert again.stderr.splitlines() == [
        f"spai-train: {tmp_path / 'run'} holds a run: --resume goes on with it, or name another --output"
    ]
    resumed = train("fit", *arguments, "--resume")
    assert (resumed.code, resumed.stdout) == (0, first.stdout)
    assert "resumed at step 6 of 6" in resumed.stderr


@pytest.mark.parametrize("command", ["fit", "pretrain"])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--data", "nowhere.csv"], "cannot read nowhere.csv: No such file or directory"),
        (["--batch-size", 25], "batch_size 25 is more than the 24 training images: lower it"),
        (["--set", "batch_sise=8"], "has no key `batch_sise`"),
        (["--precision", "fp16"], "fp16 trains on a GPU alone"),
        (["--device", "gpu"], "Invalid enum value 'gpu'"),
        (["--recipe", "nothing"], "there is no recipe nothing"),
        (["--epochs", 0], "Invalid value for '--epochs'"),
        (["--store", "nowhere.lmdb"], "there is no store nowhere.lmdb"),
    ],
)
def test_an_error_is_one_line_and_leaves_nothing(
    command: str, wrong: list[object], said: str, train: Any, recipe: Path, table: Path, tmp_path: Path
) -> None:
    start = options(recipe, table, tmp_path / "run")
    if wrong[0] == "--data":
        del start[2:4]
    ran = train(command, *start, *wrong)
    assert (ran.code, ran.stdout) == (2, "")
    assert said in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "wrong", "said"),
    [
        ("fit", ["--set", "model.heads=3"], "heads 3 does not divide width 16"),
        ("fit", ["--set", "stage=semantic"], "there is no stage semantic"),
        ("fit", ["--set", "beside={}"], "nothing draws views beside others here"),
        ("fit", ["--vae", "vae.pth"], "SPAI has no VAE"),
        ("fit", ["--pretrained", "nowhere.pth"], "nowhere.pth"),
        ("fit", ["--start", "nowhere.pth"], "nowhere.pth"),
        ("fit", ["--detector", "community-forensics", "--set", "initial=fan_in"], "leave initial=fan_in out"),
        ("fit", ["--detector", "rine"], "give --pretrained timm"),
        ("fit", ["--set", "accumulate=3"], "batch_size 8 cannot be shared"),
        ("fit", ["--set", "trackers=[nothing]"], "there is no tracker nothing"),
        ("pretrain", ["--set", "model.backbone=clip"], "not by clip"),
        ("pretrain", ["--set", "accumulate=3"], "batch_size 8 cannot be shared"),
        ("pretrain", ["--precision", "fp16"], "fp16 trains on a GPU alone"),
    ],
)
def test_a_wrong_recipe_is_told_before_a_table_is_opened(
    command: str, wrong: list[object], said: str, train: Any, recipe: Path, tmp_path: Path
) -> None:
    table = tmp_path / "images.csv"
    table.write_text("no,table\n")  # what would be said, were it opened
    content = yaml.safe_load(recipe.read_text())
    if "--detector" in wrong:
        small = {"rine": {"width": 64, "depth": 1, "projection": 8}}
        content["fit"] |= {"model": small.get(str(wrong[1]), {"width": 64, "depth": 1}), "initial": "upstream"}
        recipe.write_text(yaml.safe_dump(content))
    ran = train(command, *options(recipe, table, tmp_path / "run"), *wrong)
    assert (ran.code, ran.stdout) == (2, "")
    assert said in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("command", "before"), [("fit", 72), ("pretrain", 2048)])
def test_a_batch_size_that_nobody_chose_follows_the_data(
    command: str, before: int, train: Any, table: Path, tmp_path: Path
) -> None:
    output, small = tmp_path / "run", ["--set", f"model={json.dumps(MODEL)}", "--set", "trackers=[]"]
    arguments = ["--data", table, "--output", output, "--epochs", 1, "--workers", 0, "--device", "cpu", *small]
    arguments += ["--set", "views=1"] * (command == "fit")
    ran = train(command, *arguments)
    assert ran.code == 0, ran.stderr
    said = f"batch_size is 3 and not {before}, to suit 24 training images; --batch-size sets another"
    assert said in ran.stderr.splitlines()
    assert yaml.safe_load((output / "recipe.yaml").read_text())[command]["batch_size"] == 3
    assert metrics_of(output)[-1]["step"] == 8
    resumed = train(command, *arguments, "--resume")
    assert (resumed.code, resumed.stdout) == (0, ran.stdout)
    again = train(command, *arguments, "--resume", "--batch-size", 4)
    assert (again.code, again.stderr.count("another batch_size")) == (2, 1)


@pytest.mark.parametrize("given", ["an option", "a file"])
def test_a_batch_size_that_was_chosen_stays(given: str, train: Any, recipe: Path, table: Path, tmp_path: Path) -> None:
    arguments = options(recipe, table, tmp_path / "run")
    if given == "a file":
        at = arguments.index("--batch-size")
        del arguments[at : at + 2]
        content = yaml.safe_load(recipe.read_text())
        recipe.write_text(yaml.safe_dump({"fit": {**content["fit"], "batch_size": 25}}))
    else:
        arguments += ["--batch-size", 25]
    ran = train("fit", *arguments)
    assert ran.code == 2
    assert ran.stderr.splitlines() == ["spai-train: batch_size 25 is more than the 24 training images: lower it"]


def test_an_output_that_cannot_be_written_is_a_sentence(train: Any, recipe: Path, table: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = train("fit", *options(recipe, table, tmp_path / "file" / "run"))
    assert ran.code == 2
    assert ran.stderr.splitlines() == [f"spai-train: cannot write {tmp_path / 'file' / 'run'}: Not a directory"]

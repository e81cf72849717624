"""Fine-tuning: steps against upstream's formulas written out, and what each key of the recipe does to the weights."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.nn import functional as F

from spai_runtime.errors import OutputError
from spai_train import fit as fitting
from spai_train.checkpoint import CheckpointError, load_checkpoint
from spai_train.data.augment import Augment
from spai_train.data.dataset import TrainingImages, collate
from spai_train.data.order import PlanError, Ticket, permutation
from spai_train.data.rows import read_labelled
from spai_train.data.table import TableError
from spai_train.detectors.spai import SPEC
from spai_train.fit import FitRecipe, FitTask, fit, set_up
from spai_train.models.vit import Backbone
from spai_train.pretrain import pretrain
from spai_train.recipe import load_recipe
from spai_train.sections import RecipeError
from spai_train.torch_engine import TorchEngine
from spai_train.training.launch import LaunchError, launch
from spai_train.training.losses import supervised_contrast, triplet_margin
from spai_train.training.run import RunFolder
from spai_train.training.start import draw_model
from tests.support.training import (
    contents,
    fit_recipe,
    largest_difference,
    metrics_of,
    pretrain_recipe,
    same,
    tensors,
    write_labelled,
)
from tests.support.written_out import AdamW, cross_entropy, decays, layer_share, logits

# Rounding must not decide the direction of a step where a gradient is next to nothing.
STEADY: dict[str, Any] = {"model__dropout": 0.0, "optimizer__eps": 1e-4}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled(tmp_path_factory.mktemp("data") / "set")


def images_of(recipe: FitRecipe) -> TrainingImages:
    data = read_labelled(recipe.data)
    return TrainingImages(data.training, data.store, Augment(recipe.augmentation, 32), recipe.views, recipe.seed)


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the recipe as it is; do not write into it."""
    path = tmp_path_factory.mktemp("run") / "run"
    fit(fit_recipe(table), path)
    return path


def last(path: Path) -> dict[str, Tensor]:
    return tensors(path / "last.safetensors")


def backbone(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: part for name, part in weights.items() if name.startswith("encoder.backbone.")}


def short(table: Path, path: Path, **overrides: Any) -> dict[str, Tensor]:
    """The weights after an epoch."""
    fit(fit_recipe(table, **{"schedule__epochs": 1, **overrides}), path)
    return last(path)


@pytest.mark.parametrize("freeze", [True, False])
def test_steps_are_upstreams_formulas_written_out(freeze: bool, table: Path, tmp_path: Path) -> None:
    """Three steps of the warm-up; AdamW's first alone would be blind to the scale of the gradient."""
    schedule = {"epochs": 1, "warmup_epochs": 1, "warmup_rate": 1e-3, "final_rate": 0}
    recipe = fit_recipe(table, freeze=freeze, schedule=schedule, **STEADY)
    images = images_of(recipe)
    model = draw_model(SPEC, recipe.model, recipe.seed, recipe.initial, None, lambda: images).double()
    model.encoder.backbone.requires_grad_(not freeze)
    optimizer = AdamW(
        model.named_parameters(),
        lambda name: layer_share(name, "encoder.backbone.", 2, 0.8),
        decays,
        betas=(0.9, 0.999),
        eps=1e-4,
        weight_decay=0.05,
    )
    losses, norms = [], []
    for step, chosen in enumerate(permutation(24, 0, 0).reshape(3, 8).tolist()):
        batch = collate([images[Ticket(0, index)] for index in chosen])
        loss = cross_entropy(logits(model, batch.views), batch.labels)
        losses.append(loss.item())
        warm = max(step - 1, 0) / 3
        norms.append(optimizer.step(loss, lambda share, warm=warm: 1e-3 + (3e-3 * share - 1e-3) * warm))
    outcome = fit(recipe, tmp_path)
    assert largest_difference(tensors(tmp_path / "last.safetensors"), model.state_dict()) < 1e-6
    assert outcome.history[0]["train_loss"] == pytest.approx(sum(losses) / 3, abs=1e-6)
    assert outcome.history[0]["gradient_norm"] == pytest.approx(sum(norms) / 3, rel=1e-5)


def test_accumulated_micro_batches_are_one_step(table: Path, tmp_path: Path) -> None:
    whole, parts = (short(table, tmp_path / str(n), accumulate=n, **STEADY) for n in (1, 4))
    assert largest_difference(whole, parts) < 1e-6


def test_a_run_leaves_all_its_files(run: Path) -> None:
    names = {
        "recipe.yaml",
        "log.txt",
        "metrics.jsonl",
        "curves.png",
        "state.pt",
        "last.safetensors",
        "best.safetensors",
    }
    assert {path.name for path in run.iterdir()} == names
    assert [entry["epoch"] for entry in metrics_of(run)] == [1, 2, 3, 4]
    with Image.open(run / "curves.png") as picture:
        assert picture.format == "PNG"
    checkpoint = load_checkpoint(run / "best.safetensors")
    assert checkpoint.config == fit_recipe(Path("t.csv")).model
    assert (checkpoint.card.name, checkpoint.card.threshold) == ("spai", 0.5)
    assert "not calibrated" in checkpoint.card.threshold_source


def test_a_recipe_is_followed_to_the_same_bytes(run: Path, table: Path, tmp_path: Path) -> None:
    fit(fit_recipe(table), tmp_path / "again")
    fit(fit_recipe(table, data__workers=2, data__prefetch=1), tmp_path / "workers")
    for other in ("again", "workers"):
        for name in ("last.safetensors", "best.safetensors", "metrics.jsonl"):
            assert (tmp_path / other / name).read_bytes() == (run / name).read_bytes()


def test_another_seed_is_another_run(run: Path, table: Path, tmp_path: Path) -> None:
    fit(fit_recipe(table, seed=1), tmp_path)
    assert largest_difference(last(tmp_path), last(run)) > 0.01
    assert [entry["train_loss"] for entry in metrics_of(tmp_path)] != [entry["train_loss"] for entry in metrics_of(run)]


def test_the_recipe_of_a_run_repeats_it(run: Path, tmp_path: Path) -> None:
    fit(load_recipe(run / "recipe.yaml", "fit", FitRecipe), tmp_path)
    assert same(last(tmp_path), last(run))


def test_a_finished_run_is_resumed_to_nothing(run: Path, table: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    before = contents(run)
    recipe = fit_recipe(table, trackers=["tensorboard"])
    outcome = fit(recipe, tmp_path / "run", resume=True)
    after = contents(tmp_path / "run")
    assert outcome.history == metrics_of(run)
    assert {name for name in after if after[name] != before.get(name)} == {"recipe.yaml"}  # which names the tracker
    assert fit(fit_recipe(table), tmp_path / "run", resume=True) == outcome
    assert contents(tmp_path / "run") == before


def test_a_run_from_before_there_was_a_choice_of_detectors_is_resumed(run: Path, table: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    recipe = tmp_path / "run" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("  detector: spai\n", ""))
    assert recipe.read_bytes() != (run / "recipe.yaml").read_bytes()
    fit(fit_recipe(table), tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == contents(run)


def test_a_run_is_neither_overwritten_nor_resumed_as_another(run: Path, table: Path) -> None:
    before = contents(run)
    with pytest.raises(OutputError, match="--resume goes on with it"):
        fit(fit_recipe(table), run)
    with pytest.raises(RecipeError, match=r"was run with another batch_size, optimizer\.learning_rate"):
        fit(fit_recipe(table, batch_size=4, optimizer__learning_rate=1e-3), run, resume=True)
    assert contents(run) == before


@pytest.mark.parametrize(
    ("overrides", "error", "said"),
    [
        ({"pretrained": "nowhere.pth"}, CheckpointError, "nowhere.pth"),
        ({"start": "nowhere.safetensors"}, CheckpointError, "cannot read nowhere.safetensors: No such file"),
        ({"batch_size": 72}, PlanError, "batch_size 72 is more than the 24 training images"),
        ({"accumulate": 3}, PlanError, "make it a multiple of 3"),
        ({"data__train_split": "test"}, TableError, "no row in the split test"),
        ({"precision": "fp16"}, LaunchError, "fp16 trains on a GPU alone"),
        ({"trackers": ["scoreboard"]}, LaunchError, "there is no tracker scoreboard"),
    ],
)
def test_what_will_not_do_is_said_before_anything_is_written(
    overrides: dict[str, Any], error: type[Exception], said: str, table: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said) as caught:
        fit(fit_recipe(table, **overrides), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_best_epoch_is_kept(table: Path, tmp_path: Path) -> None:
    """The metric is the validation loss that scikit-learn finds in each epoch's own checkpoint."""
    outcome = fit(fit_recipe(table, keep="all"), tmp_path)
    losses = [entry["val_loss"] for entry in metrics_of(tmp_path)]
    best = int(np.argmin(losses)) + 1
    assert 1 <= best < 4
    assert outcome.best == outcome.history[best - 1]
    assert {path.stem for path in tmp_path.glob("epoch_*")} == {f"epoch_00{epoch}" for epoch in range(1, 5)}
    files = {name: (tmp_path / f"{name}.safetensors").read_bytes() for name in ("best", "last", f"epoch_00{best}")}
    assert files["best"] == files[f"epoch_00{best}"] != files["last"]


def test_a_rate_of_nothing_stops_after_its_patience(table: Path, tmp_path: Path) -> None:
    nothing = {"optimizer__learning_rate": 0, "schedule__warmup_rate": 0, "schedule__final_rate": 0}
    outcome = fit(fit_recipe(table, stopping__patience=2, schedule__epochs=9, **nothing), tmp_path)
    assert (len(outcome.history), outcome.stopped, outcome.best["epoch"]) == (3, True, 1)
    assert same(last(tmp_path), tensors(tmp_path / "best.safetensors"))


@pytest.mark.parametrize(
    ("name", "shares"),
    [("linear", (1 - 0.99 / 6, 1 - 0.99 * 4 / 6)), ("step", (0.1, 0.01)), ("multistep", (0.1, 0.01))],
)
def test_every_schedule_and_sgd_train_and_resume_to_the_same_bytes(
    name: str, shares: tuple[float, float], table: Path, tmp_path: Path
) -> None:
    """:param shares: of the peak, which the last of the three steps of the second and of the third epoch has"""
    recipe = fit_recipe(
        table,
        optimizer__name="sgd",
        schedule__name=name,
        schedule__epochs=3,
        schedule__decay_epochs=1,
        schedule__milestones=[1, 2],
    )

    def dies(epoch: int, _: Any) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    whole = fit(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, tmp_path / "cut", on_epoch=dies)
    assert fit(recipe, tmp_path / "cut", resume=True) == whole
    assert (tmp_path / "cut" / "last.safetensors").read_bytes() == (
        tmp_path / "whole" / "last.safetensors"
    ).read_bytes()
    warm = 2.5e-7 + (3e-3 - 2.5e-7) / 3
    found = [entry["learning_rate"] for entry in whole.history]
    assert found == pytest.approx([warm, *(3e-3 * share for share in shares)])


def test_tests_measure_each_epoch_and_move_nothing(run: Path, table: Path, tmp_path: Path) -> None:
    """One table is the validation's images once more; of the other, which has one class, there is no AUC."""
    for name, kept in (("again", (0, 1)), ("fakes", (1,))):
        rows = [f"images/{index:03d}.png,{index % 2}\n" for index in range(24, 36) if index % 2 in kept]
        (table.parent / f"{name}.csv").write_text("image,class\n" + "".join(rows))
    tests = [str(table.parent / f"{name}.csv") for name in ("again", "fakes")]
    outcome = fit(fit_recipe(table, data__tests=tests), tmp_path / "run")
    for name in ("last.safetensors", "best.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (run / name).read_bytes()
    for entry, plain in zip(metrics_of(tmp_path / "run"), metrics_of(run), strict=True):
        assert entry.items() >= plain.items()
        for metric in ("loss", "auc", "ap", "accuracy", "unreadable"):
            assert entry[f"test_again_{metric}"] == pytest.approx(entry[f"val_{metric}"], rel=1e-5)
        names = {name.removeprefix("test_fakes_") for name in entry if name.startswith("test_fakes_")}
        assert names == {"loss", "accuracy", "unreadable"}
    assert outcome.best["val_loss"] == min(entry["val_loss"] for entry in metrics_of(run))


def test_a_test_that_cannot_be_read_stops_nothing(table: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "broken.csv").write_text("image,class\ntext.png,1\n")
    short(table, tmp_path / "run", data__tests=[str(tmp_path / "broken.csv")])
    assert not [name for name in metrics_of(tmp_path / "run")[0] if name.startswith("test_")]
    said = "none of the 1 test_broken images can be read; text.png: not an image"
    assert said in (tmp_path / "run" / "log.txt").read_text()


def test_validation_that_is_short_of_memory_goes_on_and_says_so_once(
    table: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = short(table, tmp_path / "whole")
    compute, tried = TorchEngine._compute, list[int]()

    def little(engine: TorchEngine, batch: Any) -> Any:
        if batch.ndim == 4:  # views, not features
            tried.append(len(batch))
            if len(batch) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(engine, batch)

    monkeypatch.setattr(TorchEngine, "_compute", little)
    found = short(table, tmp_path / "short", schedule__epochs=2, validation_batch_size=8)
    assert tried[:3] == [8, 4, 2]
    assert set(tried[3:]) == {1}
    assert caplog.messages.count("cpu is out of memory; going on with batches of 1 view") == 1
    first, second = (metrics_of(tmp_path / name)[0]["train_loss"] for name in ("whole", "short"))
    assert (first, whole.keys()) == (second, found.keys())


def test_a_broken_image_is_skipped_named_and_counted(table: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(table.parent, tmp_path / "set")
    for name in ("002.png", "031.png"):
        (copied / "images" / name).write_text("no image")
    fit(fit_recipe(copied / "images.csv", schedule__epochs=2), tmp_path / "run")
    assert [(entry["unreadable"], entry["val_unreadable"]) for entry in metrics_of(tmp_path / "run")] == [(1, 1)] * 2
    log = (tmp_path / "run" / "log.txt").read_text()
    for name in ("002.png", "031.png"):
        assert log.count(f"skipped images/{name}: not an image") == 1


def test_a_metric_that_cannot_be_had_is_a_sentence(table: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(table.parent, tmp_path / "set")
    for index in range(24, 36, 2):
        (copied / "images" / f"{index:03d}.png").write_text("no image")
    short(copied / "images.csv", tmp_path / "loss")
    with pytest.raises(TableError, match="val_auc needs validation images of both classes, and those of one cannot"):
        short(copied / "images.csv", tmp_path / "auc", stopping__metric="val_auc")


@pytest.mark.parametrize(("freeze", "moves"), [(True, False), (False, True), (None, True)])
def test_a_frozen_backbone_stays_bit_for_bit(freeze: bool | None, moves: bool, table: Path, tmp_path: Path) -> None:
    recipe = fit_recipe(table, freeze=freeze)
    before = draw_model(SPEC, recipe.model, recipe.seed, recipe.initial, None, lambda: images_of(recipe)).state_dict()
    after = short(table, tmp_path, freeze=freeze)
    assert same(backbone(before), backbone(after)) is not moves
    assert largest_difference(before, after) > 1e-3


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, True),
        ({"model__backbone": "clip"}, False),
        ({"model__blocks": [0]}, False),
        ({"model__backbone": "clip", "freeze": True}, True),
        ({"start": "of_any_model.safetensors"}, True),
        ({"start": "of_any_model.safetensors", "freeze": False}, False),
    ],
)
def test_parameters_without_a_gradient_are_looked_for_where_there_may_be_some(
    overrides: dict[str, Any], expected: bool, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(*_: object, all_train: bool) -> None:
        asked.append(all_train)
        raise LaunchError("enough")

    monkeypatch.setattr(fitting, "launch", refuse)
    with pytest.raises(LaunchError, match="enough"):
        fit(fit_recipe(table, **overrides), tmp_path)
    assert asked == [expected]


def test_a_pre_trained_backbone_is_loaded_and_frozen(table: Path, tmp_path: Path) -> None:
    pretrain(pretrain_recipe(table, optimizer__learning_rate=1e-2), tmp_path / "pretraining")
    theirs = torch.load(tmp_path / "pretraining" / "last.pth", weights_only=True)["model"]
    ours = backbone(short(table, tmp_path / "run", pretrained=str(tmp_path / "pretraining" / "last.pth")))
    for name in ("patch_embed.proj.weight", "pos_embed", "blocks.1.mlp.fc2.weight"):
        assert torch.equal(ours[f"encoder.backbone.{name}"], theirs[f"encoder.{name}"])
    recipe = fit_recipe(table)
    drawn = draw_model(SPEC, recipe.model, recipe.seed, recipe.initial, None, lambda: images_of(recipe)).state_dict()
    assert largest_difference(ours, backbone(drawn)) > 0.01


def test_a_checkpoint_is_gone_on_from(run: Path, table: Path, tmp_path: Path) -> None:
    nothing = {"optimizer__learning_rate": 0, "schedule__warmup_rate": 0, "schedule__final_rate": 0}
    best = run / "best.safetensors"
    assert same(short(table, tmp_path / "still", start=str(best), model__width=32, **nothing), tensors(best))
    assert largest_difference(short(table, tmp_path / "on", start=str(best)), tensors(best)) > 1e-3


@pytest.mark.parametrize("name", ["supcon", "triplet"])
def test_a_metric_loss_alone_moves_the_embedding(name: str, table: Path, tmp_path: Path) -> None:
    recipe = fit_recipe(table, objective__name=name, **STEADY)
    accelerator = launch(recipe, tmp_path, all_train=True)
    data = read_labelled(recipe.data)
    images, model = set_up(recipe, accelerator, lambda: data)
    task = FitTask(recipe, data, images(), model, RunFolder(tmp_path), accelerator)
    batch = collate([task.images[Ticket(0, index)] for index in range(8)])
    parameters = dict(task.model.named_parameters())

    def gradients(loss: Tensor) -> dict[str, Tensor]:
        found = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
        return dict(zip(parameters, found, strict=True))

    both = gradients(task.loss(task.model, batch, seed=5))
    embedding = task.model(batch.views).embedding
    metric = gradients(
        supervised_contrast(embedding, batch.labels, 0.07)
        if name == "supcon"
        else triplet_margin(embedding, batch.labels, 0.5, seed=5)
    )
    logit = task.model.head.classify(embedding.detach())
    probe = gradients(F.binary_cross_entropy_with_logits(logit.squeeze(1), batch.labels))
    for part in parameters:
        torch.testing.assert_close(both[part], (probe if part.startswith("head.mlp.") else metric)[part])
    assert float(metric["head.to_kv.weight"].norm()) > 0 < float(probe["head.mlp.0.weight"].norm())


@pytest.mark.parametrize("name", ["supcon", "bce_supcon", "triplet"])
def test_every_objective_trains(name: str, run: Path, table: Path, tmp_path: Path) -> None:
    weights = short(table, tmp_path, objective__name=name, schedule__epochs=2)
    assert all(np.isfinite(list(entry.values())).all() for entry in metrics_of(tmp_path))
    assert metrics_of(tmp_path)[0]["train_loss"] > metrics_of(run)[0]["train_loss"]  # there is a second loss in it
    assert largest_difference(weights, last(run)) > 1e-3


def test_bf16_trains_nearly_the_same(table: Path, tmp_path: Path) -> None:
    single, half = (short(table, tmp_path / name, precision=name, **STEADY) for name in ("fp32", "bf16"))
    assert 0 < largest_difference(single, half) < 5e-3
    assert all(part.dtype == torch.float32 for part in half.values())
    losses = [metrics_of(tmp_path / name)[0] for name in ("fp32", "bf16")]
    assert losses[0]["train_loss"] != losses[1]["train_loss"]
    assert losses[0]["train_loss"] == pytest.approx(losses[1]["train_loss"], rel=0.05)


def test_computing_activations_twice_changes_nothing(table: Path, tmp_path: Path) -> None:
    options = {"model__drop_path": 0.5, "freeze": False}
    kept, again = (short(table, tmp_path / str(on), checkpointing=on, **options) for on in (False, True))
    assert largest_difference(kept, again) < 1e-7


def test_a_compiled_backbone_learns_the_same(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is captured as a graph as for any compiler; generating code would take a minute."""
    compile_module, compiled = nn.Module.compile, []

    def capture(module: nn.Module) -> None:
        compiled.append(type(module))
        compile_module(module, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", capture)
    torch._dynamo.utils.counters.clear()
    plain, fused = (short(table, tmp_path / str(on), compile=on, freeze=False, **STEADY) for on in (False, True))
    assert compiled == [Backbone]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert not torch._dynamo.utils.counters["graph_break"]
    assert largest_difference(plain, fused) < 1e-6


def test_trackers_are_told_steps_and_epochs(table: Path, tmp_path: Path) -> None:
    short(table, tmp_path, trackers=["tensorboard"], log_every=2)
    told = EventAccumulator(str(tmp_path / "spai")).Reload()
    (metrics,) = metrics_of(tmp_path)
    assert [(event.step, event.value) for event in told.Scalars("val_loss")] == [
        (3, pytest.approx(metrics["val_loss"]))
    ]
    assert [event.step for event in told.Scalars("step/train_loss")] == [2]
    assert "objective.name: bce" in next((tmp_path / "spai").rglob("hparams.yml")).read_text()

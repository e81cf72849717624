"""Checkpoints of every layout load, and nothing that they carry runs."""

import hashlib
import json
import pickle
from collections import OrderedDict
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from spai_runtime.errors import RefusedError
from spai_train.checkpoint import (
    Card,
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
    save_upstream,
)
from spai_train.cli import main
from spai_train.detectors.spai.model import SPAI, SPAIConfig
from spai_train.detectors.spai.upstream import to_upstream
from spai_train.models.pretrained import load_pretrained
from spai_train.tensors import CheckpointRefusedError
from tests.golden import CHECKPOINT
from tests.support.models import UNEVEN

UNUSED = ("cls_pos_embed", "actual_cls_token", "cls_blocks", "fc_norm", "vit.head")


@pytest.fixture(scope="module")
def official() -> dict[str, Any]:
    """The golden file as torch reads it once yacs' class is mapped."""
    with torch.serialization.safe_globals([(OrderedDict, "yacs.config.CfgNode")]):
        return torch.load(CHECKPOINT, weights_only=True)  # type: ignore[no-any-return]


@pytest.fixture
def model() -> SPAI:
    torch.manual_seed(0)
    return SPAI(UNEVEN).eval()


def written(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def test_official_layout() -> None:
    checkpoint = load_checkpoint(CHECKPOINT)
    config = checkpoint.config
    assert (config.width, config.depth, config.heads, config.blocks) == (128, 3, 2, (0, 1, 2))
    assert (config.projection, config.attention_width, config.attention_heads, config.head_ratio) == (64, 96, 4, 3)
    assert (config.tile_size, config.tile_stride, config.mask_radius, config.features) == (224, 224, 16, 82)
    assert checkpoint.sha256 == hashlib.sha256(CHECKPOINT.read_bytes()).hexdigest()
    assert checkpoint.card.name == "spai_small"


def test_minimum_tiles_is_the_published_one(official: dict[str, Any], tmp_path: Path) -> None:
    """The official checkpoint embeds 1, a leftover of training."""
    official["config"]["MODEL"]["PATCH_VIT"]["MINIMUM_PATCHES"] = 1
    assert load_checkpoint(written(tmp_path / "x.pth", official)).config.minimum_tiles == 4


def test_k_has_no_bias_and_q_and_v_have_theirs(official: dict[str, Any]) -> None:
    bias = load_checkpoint(CHECKPOINT).state["encoder.backbone.blocks.1.attn.qkv.bias"]
    assert torch.equal(bias[:128], official["model"]["mfvit.vit.blocks.1.attn.q_bias"])
    assert not bias[128:256].any()
    assert torch.equal(bias[256:], official["model"]["mfvit.vit.blocks.1.attn.v_bias"])


def test_upstream_to_ours_and_back_is_the_identity(official: dict[str, Any]) -> None:
    checkpoint = load_checkpoint(CHECKPOINT)
    back = to_upstream(checkpoint.state, checkpoint.config)
    used = {name: tensor for name, tensor in official["model"].items() if not any(part in name for part in UNUSED)}
    assert len(official["model"]) - len(used) == 25
    assert all(torch.equal(back[name], tensor) for name, tensor in used.items())


def test_what_is_written_for_upstream_has_the_names_shapes_and_types_of_its_own_file(official: dict[str, Any]) -> None:
    checkpoint = load_checkpoint(CHECKPOINT)
    back = to_upstream(checkpoint.state, checkpoint.config)
    assert layout(back) == layout(official["model"])


def layout(state: dict[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}


def test_the_published_dimensions_give_the_official_files_tensors() -> None:
    """324 of them with 139,945,243 values, as its authors' file has."""
    with torch.device("meta"):
        state = SPAI(SPAIConfig()).state_dict()
    written = to_upstream(state, SPAIConfig())
    assert len(written) == 324
    assert sum(tensor.numel() for tensor in written.values()) == 139_945_243


def test_what_upstream_never_reads_is_written_as_it_draws_it(model: SPAI) -> None:
    """`sid.py`: N(0, 0.02²) for linear layers and tokens, 1 and 0 for norms, 0 for biases; the same every time."""
    one, other = (to_upstream(model.state_dict(), UNEVEN) for _ in range(2))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    for name in (name for name in one if any(part in name for part in UNUSED)):
        tensor = one[name]
        if tensor.ndim > 1:
            assert tensor.std().item() == pytest.approx(0.02, rel=5 * (2 * tensor.numel()) ** -0.5), name
            assert abs(tensor.mean().item()) < 5 * 0.02 * tensor.numel() ** -0.5, name
        else:
            assert (tensor == (0 if "bias" in name else 1)).all(), name


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_bare_state_dict(official: dict[str, Any], tmp_path: Path, suffix: str) -> None:
    """Without a configuration, shapes tell everything: heads are 64 wide, all blocks are in use."""
    path = tmp_path / f"bare{suffix}"
    if suffix == ".pth":
        torch.save(official["model"], path)
    else:
        save_file(official["model"], path)
    assert load_checkpoint(path).config == load_checkpoint(CHECKPOINT).config


def test_bare_state_dict_in_our_names(tmp_path: Path) -> None:
    golden = load_checkpoint(CHECKPOINT)
    loaded = load_checkpoint(written(tmp_path / "ours.pth", golden.state))
    assert loaded.config == golden.config
    assert all(torch.equal(loaded.state[name], tensor) for name, tensor in golden.state.items())


def test_data_parallel_prefix(official: dict[str, Any], tmp_path: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in official["model"].items()}
    assert load_checkpoint(written(tmp_path / "ddp.pth", {"model": state})).config.width == 128


def test_safetensors_carries_configuration_and_card(model: SPAI, tmp_path: Path) -> None:
    card = Card(name="mine", notice="beware", threshold=0.25, threshold_source="a guess")
    save_checkpoint(tmp_path / "mine.safetensors", model, card)
    loaded = load_checkpoint(tmp_path / "mine.safetensors")
    assert (loaded.config, loaded.card) == (UNEVEN, card)
    assert_same_output(model, loaded.model())


def test_a_header_from_before_backbones_had_a_choice(model: SPAI, tmp_path: Path) -> None:
    header = {"config": asdict(model.config), "card": asdict(Card(name="old"))}
    del header["config"]["backbone"]
    save_file(model.state_dict(), tmp_path / "old.safetensors", {"spai": json.dumps(header)})
    assert load_checkpoint(tmp_path / "old.safetensors").config == UNEVEN


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("config", {"registers": 4}, "written by a newer version: its config has registers"),
        ("config", {"backbone": "siglip"}, "has a config that cannot be read: Invalid enum value 'siglip'"),
        ("config", {"depth": 10**12, "blocks": []}, "has a config that cannot be read: Expected `int` <= 128"),
        ("card", {"threshold": "high"}, "has a card that cannot be read: Expected `float`"),
    ],
)
def test_a_header_that_makes_no_sense(
    model: SPAI, tmp_path: Path, part: str, change: dict[str, object], message: str
) -> None:
    header = {"config": asdict(model.config), "card": asdict(Card())}
    header[part].update(change)
    save_file(model.state_dict(), tmp_path / "x.safetensors", {"spai": json.dumps(header)})
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "x.safetensors")


def test_our_own_tensors_have_to_fit_exactly(model: SPAI, tmp_path: Path) -> None:
    header = {"spai": json.dumps({"config": asdict(model.config), "card": asdict(Card())})}
    for change, message in (
        ({"head.norm.bias": None}, r"is missing head\.norm\.bias$"),
        ({"head.norm.shift": torch.ones(3)}, r"has no use for head\.norm\.shift$"),
        ({"head.norm.bias": torch.ones(3)}, r"has other shapes in head\.norm\.bias$"),
    ):
        state = {name: tensor for name, tensor in {**model.state_dict(), **change}.items() if tensor is not None}
        save_file(state, tmp_path / "x.safetensors", header)
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(tmp_path / "x.safetensors")


def test_what_we_train_is_written_for_upstream(model: SPAI, tmp_path: Path) -> None:
    save_upstream(tmp_path / "up.pth", model)
    content = torch.load(tmp_path / "up.pth", weights_only=True)
    assert content["model"]["mfvit.frequencies_mask"].dtype == torch.int64
    assert "patch_aggregator" in content["model"]
    loaded = load_checkpoint(tmp_path / "up.pth")
    assert loaded.config == UNEVEN
    assert_same_output(model, loaded.model())


def test_convert_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = str(tmp_path / "a.safetensors"), str(tmp_path / "a.pth")
    assert main(["convert", str(CHECKPOINT), ours]) == main(["convert", ours, theirs]) == 0
    found, golden = load_checkpoint(theirs), load_checkpoint(CHECKPOINT)
    assert found.config == golden.config
    assert all(torch.equal(found.state[name], tensor) for name, tensor in golden.state.items())
    assert main(["convert", theirs, str(tmp_path / "b.pth")]) == 0
    first, second = (torch.load(tmp_path / name, weights_only=True)["model"] for name in ("a.pth", "b.pth"))
    assert first.keys() == second.keys()
    assert all(torch.equal(second[name], tensor) for name, tensor in first.items())
    assert oct(Path(ours).stat().st_mode & 0o777) == oct(Path(theirs).stat().st_mode & 0o777)
    capsys.readouterr()
    assert main(["convert", str(CHECKPOINT), "x.onnx"]) == 2
    assert (
        capsys.readouterr().err
        == "spai-train: cannot write x.onnx: name it .pth (upstream's layout) or .safetensors (ours)\n"
    )


def test_a_bias_on_k_does_not_matter(model: SPAI, tmp_path: Path) -> None:
    """Upstream has no place for it; softmax cancels it."""
    for block in model.encoder.backbone.blocks:
        block.attn.qkv.bias.data.normal_()
    save_upstream(tmp_path / "up.pth", model)
    assert_same_output(model, load_checkpoint(tmp_path / "up.pth").model())


def test_missing_and_left_over_tensors_are_named(official: dict[str, Any], tmp_path: Path) -> None:
    state = dict(official["model"])
    del state["mfvit.vit.blocks.2.mlp.fc2.bias"]
    with pytest.raises(CheckpointError, match=r"is missing mfvit\.vit\.blocks\.2\.mlp\.fc2\.bias"):
        load_checkpoint(written(tmp_path / "missing.pth", {**official, "model": state}))
    state = {**official["model"], "mfvit.vit.blocks.0.gamma_1": torch.ones(128)}
    with pytest.raises(CheckpointError, match=r"has no use for mfvit\.vit\.blocks\.0\.gamma_1"):
        load_checkpoint(written(tmp_path / "over.pth", {**official, "model": state}))
    state = {**official["model"], "norm.bias": torch.ones(81)}
    with pytest.raises(CheckpointError, match=r"other shapes in head\.norm\.bias"):
        load_checkpoint(written(tmp_path / "shape.pth", {**official, "model": state}))


def test_another_mask_is_not_taken_for_the_disc(official: dict[str, Any], tmp_path: Path) -> None:
    state = {**official["model"], "mfvit.frequencies_mask": torch.ones(224, 224, dtype=torch.int64)}
    with pytest.raises(CheckpointError, match="not a disc of radius 16"):
        load_checkpoint(written(tmp_path / "mask.pth", {**official, "model": state}))


def test_blocks_that_nobody_names(official: dict[str, Any], tmp_path: Path) -> None:
    projector = "mfvit.features_processor.patch_projector.projectors.2"
    state = {name: tensor for name, tensor in official["model"].items() if not name.startswith(projector)}
    with pytest.raises(CheckpointError, match="projects 2 of 3 blocks and does not say which"):
        load_checkpoint(written(tmp_path / "bare.pth", state))


class Exploit:
    """What a hostile pickle looks like."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_would_run_code_is_refused(official: dict[str, Any], tmp_path: Path, legacy: bool) -> None:
    path, target = tmp_path / "evil.pth", tmp_path / "ran"
    torch.save({**official, "epoch": Exploit(target)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointRefusedError, match="could run code"):
        load_checkpoint(path)
    assert not target.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_bare_pickle_that_would_run_code_is_refused(tmp_path: Path, protocol: int) -> None:
    """Of every protocol: not all of them are read by torch at all."""
    path, target = tmp_path / "evil.pth", tmp_path / "ran"
    path.write_bytes(pickle.dumps({"model": Exploit(target)}, protocol))
    with pytest.raises(CheckpointRefusedError, match="could run code"):
        load_checkpoint(path)
    assert not target.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.pth", b"", "not a checkpoint"),
        ("x.pth", b"PK\x03\x04 torn", "not a checkpoint"),
        ("x.pth", b"\x00" * 64, "x.pth"),
        ("x.pth", pickle.dumps({"model": {}}), "x.pth"),
        ("x.safetensors", b"\x00" * 64, "not a safetensors file"),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(tmp_path / name)
    assert not isinstance(error.value, RefusedError), "it is no danger"


def test_other_contents(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot read"):
        load_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match="holds a list"):
        load_checkpoint(written(tmp_path / "list.pth", [torch.ones(1)]))
    with pytest.raises(CheckpointError, match="holds no tensors"):
        load_checkpoint(written(tmp_path / "empty.pth", {"model": {}}))
    with pytest.raises(CheckpointError, match=r"missing mfvit\.vit\.patch_embed\.proj\.weight"):
        load_checkpoint(written(tmp_path / "other.pth", {"conv.weight": torch.ones(1)}))


def test_masked_frequency_pretraining_loads_into_the_backbone(model: SPAI, tmp_path: Path) -> None:
    backbone = model.encoder.backbone
    state = to_upstream(model.state_dict(), UNEVEN)
    vit = {f"encoder.{name[10:]}": t for name, t in state.items() if name.startswith("mfvit.vit.")}
    extra = {"encoder.norm.weight": torch.ones(24), "encoder.cls_norm.bias": torch.ones(24)}  # as upstream's have
    extra["decoder.0.weight"] = torch.ones(3)
    fresh = SPAI(UNEVEN).encoder.backbone.eval()
    load_pretrained(fresh, written(tmp_path / "mfm.pth", {"model": {**vit, **extra}}))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(fresh(images), backbone(images))
    with pytest.raises(CheckpointError, match=r"no tensor under `encoder\.`"):
        load_pretrained(fresh, written(tmp_path / "bare.pth", {"model": state}))
    with pytest.raises(CheckpointError, match="other shapes in"):
        load_pretrained(SPAI(replace(UNEVEN, width=48)).encoder.backbone, tmp_path / "mfm.pth")


def assert_same_output(one: SPAI, other: SPAI) -> None:
    views = torch.randint(0, 256, (1, 4, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        for expected, found in zip(one(views), other(views), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

"""The three families of backbones against other code: timm's registered models, OpenAI's definition, ONNX Runtime."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from spai_export.onnx import export_encoder
from spai_export.verify import sample_views
from spai_train.checkpoint import (
    Card,
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
    save_upstream,
)
from spai_train.detectors.spai.config import ratio_of
from spai_train.detectors.spai.model import SPAI, SPAIConfig
from spai_train.detectors.spai.upstream import infer_ours
from spai_train.fit import FitRecipe
from spai_train.models.positions import resample_positions, spread_positions
from spai_train.models.pretrained import load_pretrained
from spai_train.models.vit import FAMILIES, Backbone, BackboneName
from spai_train.recipe import load_recipe
from tests.support.models import CONFIGS, TINY, model_of

OTHERS: tuple[BackboneName, ...] = ("clip", "dinov2", "dinov2_vitg14")


def registered(family: BackboneName, **changes: Any) -> nn.Module:
    """timm's own model of that name at tiny dimensions, head and all."""
    config = CONFIGS[family]
    name = FAMILIES[family].hub.split(".")[0]
    dimensions = {"embed_dim": config.width, "depth": config.depth, "num_heads": config.heads, "mlp_ratio": 2.0}
    size = {"img_size": config.tile_size, "patch_size": config.patch_size}
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, **{**dimensions, **size, **changes}, num_classes=5).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def images_for(family: BackboneName) -> Tensor:
    side = CONFIGS[family].tile_size
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


class Layer(nn.Module):
    """A residual block as OpenAI's CLIP defines it; :returns: its output and what its second LayerNorm gives."""

    def __init__(self, block: Any, heads: int) -> None:
        super().__init__()
        width = block.norm1.weight.shape[0]
        self.block, self.attention = block, nn.MultiheadAttention(width, heads, batch_first=True)
        self.attention.load_state_dict(
            {
                "in_proj_weight": block.attn.qkv.weight,
                "in_proj_bias": block.attn.qkv.bias,
                "out_proj.weight": block.attn.proj.weight,
                "out_proj.bias": block.attn.proj.bias,
            }
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = nn.functional.layer_norm(x, x.shape[-1:], self.block.norm1.weight, self.block.norm1.bias, 1e-5)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        y = nn.functional.layer_norm(x, x.shape[-1:], self.block.norm2.weight, self.block.norm2.bias, 1e-5)
        hidden = self.block.mlp.fc1(y)
        return x + self.block.mlp.fc2(hidden * torch.sigmoid(1.702 * hidden)), y


def test_clip_is_openais_definition() -> None:
    backbone = model_of("clip").encoder.backbone
    images = images_for("clip")
    x = nn.functional.conv2d(images, backbone.patch_embed.proj.weight, stride=8).flatten(2).transpose(1, 2)
    x = torch.cat((backbone.cls_token.expand(2, 1, -1), x), dim=1) + backbone.pos_embed
    x = nn.functional.layer_norm(x, x.shape[-1:], backbone.norm_pre.weight, backbone.norm_pre.bias, 1e-5)
    for block, found in zip(backbone.blocks, backbone(images), strict=True):
        x, tokens = Layer(block, heads=2)(x)
        torch.testing.assert_close(found, tokens[:, 1:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["dinov2", "dinov2_vitg14"])
def test_dinov2_is_timms_intermediate_layers(family: BackboneName) -> None:
    """Upstream calls `get_intermediate_layers` with its default, which applies the final norm to each."""
    theirs = registered(family)
    backbone = SPAI(CONFIGS[family]).eval().encoder.backbone
    state = theirs.state_dict()
    backbone.load_state_dict({name: state[name] for name in backbone.state_dict()})
    images = images_for(family)
    expected = theirs.get_intermediate_layers(images, [0, 1], norm=True)  # type: ignore[operator]
    for found, wanted in zip(backbone(images), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_the_giants_mlp_is_facebooks_swiglu() -> None:
    """dinov2/layers/swiglu_ffn.py: x₁, x₂ = w₁₂(x); w₃(silu(x₁)·x₂)."""
    mlp = model_of("dinov2_vitg14").encoder.backbone.blocks[0].mlp
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    first, second = nn.functional.linear(x, mlp.fc1.weight, mlp.fc1.bias).chunk(2, dim=-1)
    expected = nn.functional.linear(first * torch.sigmoid(first) * second, mlp.fc2.weight, mlp.fc2.bias)
    torch.testing.assert_close(mlp(x), expected)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("family", OTHERS)
def test_weights_in_timms_names(family: BackboneName, suffix: str, tmp_path: Path) -> None:
    theirs, backbone = registered(family), SPAI(CONFIGS[family]).eval().encoder.backbone
    path = tmp_path / f"vit{suffix}"
    save_file(theirs.state_dict(), path) if suffix == ".safetensors" else torch.save(theirs.state_dict(), path)
    load_pretrained(backbone, path)
    images, seen = images_for(family), []
    for block in theirs.blocks:  # type: ignore[union-attr]
        read = block.norm2 if family == "clip" else block
        read.register_forward_hook(lambda _, __, output: seen.append(output[:, 1:]))
    theirs(images)
    expected = seen if family == "clip" else [theirs.norm(tokens) for tokens in seen]  # type: ignore[operator]
    for found, wanted in zip(backbone(images), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    backbone, state = SPAI(CONFIGS["clip"]).encoder.backbone, registered("clip").state_dict()
    for change, message in (
        ({"blocks.1.mlp.fc2.bias": None}, r"is missing blocks\.1\.mlp\.fc2\.bias$"),
        ({"patch_embed.proj.bias": torch.ones(16)}, r"has no use for patch_embed\.proj\.bias$"),
        ({"cls_token": torch.ones(1, 1, 8)}, r"has other shapes in cls_token$"),
    ):
        changed = {name: tensor for name, tensor in {**state, **change}.items() if tensor is not None}
        torch.save(changed, tmp_path / "x.pth")
        with pytest.raises(CheckpointError, match=message):
            load_pretrained(backbone, tmp_path / "x.pth")
    torch.save({"cls_token": state["cls_token"]}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"is missing blocks\.0\.attn\.proj\.bias, .* and 23 more$"):
        load_pretrained(backbone, tmp_path / "x.pth")


def test_positions_of_another_size_are_resampled(tmp_path: Path) -> None:
    theirs, backbone = registered("dinov2", img_size=63), SPAI(CONFIGS["dinov2"]).encoder.backbone
    torch.save({**theirs.state_dict(), "mask_token": torch.ones(1, 16)}, tmp_path / "x.pth")  # as its authors write it
    load_pretrained(backbone, tmp_path / "x.pth")
    assert torch.equal(backbone.pos_embed, resample_positions(theirs.pos_embed, 4))  # type: ignore[arg-type]
    assert torch.equal(backbone.pos_embed[:, 0], theirs.pos_embed[:, 0])  # type: ignore[index]


@pytest.mark.parametrize(("grid", "side"), [(37, 16), (9, 4), (4, 9)])
def test_resampling_is_dinov2s_bicubic(grid: int, side: int) -> None:
    positions = torch.randn(1, 1 + grid * grid, 3, generator=torch.Generator().manual_seed(0))
    found = resample_positions(positions, side)[0, 1:].reshape(side, side, 3)
    along = cubic_weights(grid, side)  # (side, grid)
    expected = np.einsum("ya,xb,abc->yxc", along, along, positions[0, 1:].reshape(grid, grid, 3).double().numpy())
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_spreading_is_what_resampling_undoes() -> None:
    positions = torch.randn(1, 1 + 24 * 24, 3, generator=torch.Generator().manual_seed(0))
    spread = spread_positions(positions, 37)
    assert spread.shape == (1, 1 + 37 * 37, 3)
    torch.testing.assert_close(resample_positions(spread, 24), positions, atol=1e-5, rtol=0)


def cubic_weights(grid: int, side: int) -> NDArray[np.float64]:
    """Keys' kernel with a = −0.75 about (i + ½) / scale − ½, the border repeated; the scale is (side + 0.1) / grid."""
    weights = np.zeros((side, grid))
    for index in range(side):
        centre = (index + 0.5) * grid / (side + 0.1) - 0.5
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            x = abs(centre - tap)
            near, far = 1.25 * x**3 - 2.25 * x**2 + 1, -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
            weights[index, min(max(tap, 0), grid - 1)] += near if x <= 1 else far
    return weights


def test_download(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, asked = registered("clip"), []

    def create_model(name: str, *, pretrained: bool, **_: object) -> nn.Module:
        assert pretrained
        asked.append(name)
        return theirs

    monkeypatch.setattr(timm, "create_model", create_model)
    backbone = SPAI(CONFIGS["clip"]).encoder.backbone
    load_pretrained(backbone, "timm")
    assert torch.equal(backbone.pos_embed, theirs.pos_embed)
    assert asked == ["vit_base_patch16_clip_quickgelu_224.openai"]


def test_a_download_that_fails_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_model(*_: object, **__: object) -> nn.Module:
        raise OSError("no route\nto the hub")

    monkeypatch.setattr(timm, "create_model", create_model)
    with pytest.raises(CheckpointError, match=r"^cannot download vit_base_patch14_dinov2\.lvd142m .*: no route$"):
        load_pretrained(SPAI(CONFIGS["dinov2"]).encoder.backbone, "timm")
    with pytest.raises(CheckpointError, match=r"^timm has no such pre-training: name the file of one$"):
        load_pretrained(SPAI(CONFIGS["mfm"]).encoder.backbone, "timm")


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.hub])
def test_names_and_published_dimensions_are_those_of_timms_hub(family: BackboneName) -> None:
    with torch.device("meta"):
        ours = SPAI(SPAIConfig(backbone=family)).encoder.backbone.state_dict()
        theirs = timm.create_model(FAMILIES[family].hub.split(".")[0], img_size=224, num_classes=0).state_dict()
    assert FAMILIES[family].hub in timm.list_pretrained()
    assert {name: tensor.shape for name, tensor in ours.items()}.items() <= {
        name: tensor.shape for name, tensor in theirs.items()
    }.items()
    assert not {name for name in theirs.keys() - ours.keys() if not name.startswith("norm.")}


# Patch, width, depth, heads (facebookresearch/dinov2, README), and D = 6·K + 1024 of a SPAI that looks at all blocks.
PUBLISHED: dict[BackboneName, tuple[int, int, int, int, int]] = {
    "mfm": (16, 768, 12, 12, 1096),
    "clip": (16, 768, 12, 12, 1096),
    "dinov2": (14, 768, 12, 12, 1096),
    "dinov2_vitl14": (14, 1024, 24, 16, 1168),
    "dinov2_vitg14": (14, 1536, 40, 24, 1264),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_name_of_a_backbone_sets_its_dimensions(family: BackboneName) -> None:
    model = load_recipe("spai", "fit", FitRecipe, {"model.backbone": family}).model
    assert model == SPAIConfig(backbone=family)
    found = (model.patch_size, model.width, model.depth, model.heads, model.features)
    assert (found, model.blocks) == (PUBLISHED[family], tuple(range(model.depth)))
    given = load_recipe("spai", "fit", FitRecipe, {"model.backbone": family, "model.depth": 3, "model.width": 96}).model
    assert (given.depth, given.width, given.blocks) == (3, 96, (0, 1, 2))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bare_state_dict_of_the_published_dimensions_tells_its_backbone(family: BackboneName) -> None:
    config = SPAIConfig(backbone=family)
    with torch.device("meta"):
        found = infer_ours(SPAI(config).state_dict())
    assert replace(found, mlp_ratio=config.mlp_ratio) == config
    assert int(found.width * found.mlp_ratio) == int(config.width * config.mlp_ratio)


def test_each_family_sees_its_own_colours() -> None:
    black = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    for family, mean, std in (
        ("mfm", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("clip", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ("dinov2", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("dinov2_vitg14", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ):
        size = CONFIGS[family].tile_size  # type: ignore[index]
        found = model_of(family).encoder.branches(black[:, :size, :size])[0, :, 0, 0]  # type: ignore[arg-type]
        torch.testing.assert_close(found, -torch.tensor(mean) / torch.tensor(std))


@pytest.mark.parametrize("family", OTHERS)
def test_export(family: BackboneName, tmp_path: Path) -> None:
    model, path = model_of(family), tmp_path / "encoder.onnx"
    size = model.config.tile_size
    export_encoder(model.encoder, (size, size), path)
    session = onnxruntime.InferenceSession(str(path))
    for count in (1, 3):
        views = sample_views(count, size, size)
        (features,) = session.run(None, {"views": views})
        with torch.inference_mode():
            np.testing.assert_allclose(features, model.encoder(torch.from_numpy(views)), atol=2e-5, rtol=0)
    nodes = onnx.load(str(path)).graph.node
    assert [node.input[0] for node in nodes if node.op_type == "Cast"] == ["views"]
    assert not {"Shape", "Expand", "If", "Loop"} & {node.op_type for node in nodes}


@pytest.mark.parametrize("family", CONFIGS)
def test_what_is_saved_is_what_is_loaded(family: BackboneName, tmp_path: Path) -> None:
    """Bit for bit, k's bias among it; a bare state dict tells its family by what only that one has."""
    model = model_of(family)
    save_checkpoint(tmp_path / "x.safetensors", model, Card())
    loaded = load_checkpoint(tmp_path / "x.safetensors")
    assert loaded.config == model.config
    expected = model.state_dict()
    assert loaded.state.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state.items())
    wide = replace(CONFIGS[family], width=64, heads=1, mask_radius=16)  # what a bare state dict is taken to have
    torch.save(SPAI(wide).state_dict(), tmp_path / "bare.pth")
    assert load_checkpoint(tmp_path / "bare.pth").config == replace(wide, dropout=0.5, drop_path=0.1)


@pytest.mark.parametrize("family", OTHERS)
def test_upstreams_layout_has_no_place_for_them(family: BackboneName, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"no place for a {family} backbone; write \.safetensors"):
        save_upstream(tmp_path / "x.pth", model_of(family))


@pytest.mark.parametrize("family", CONFIGS)
def test_checkpointing_gives_the_same_gradients(family: BackboneName) -> None:
    model = SPAI(replace(CONFIGS[family], drop_path=0.5)).train()
    size = model.config.tile_size
    views = torch.randint(0, 256, (2, 4, size, size, 3), dtype=torch.uint8)
    plain, recomputed = (gradients(model, views, checkpointing=value) for value in (False, True))
    assert plain.keys() == recomputed.keys()
    assert all(torch.equal(plain[name], gradient) for name, gradient in recomputed.items())


def test_checkpointing_runs_the_blocks_twice() -> None:
    model, runs = SPAI(TINY).train(), []
    model.encoder.backbone.blocks[0].norm1.register_forward_hook(lambda *_: runs.append(1))
    for checkpointing, expected in ((False, 1), (True, 2)):
        runs.clear()
        gradients(model, torch.zeros(1, 4, 32, 32, 3, dtype=torch.uint8), checkpointing=checkpointing)
        assert len(runs) == expected


def gradients(model: SPAI, views: Tensor, *, checkpointing: bool) -> dict[str, Tensor]:
    model.encoder.backbone.checkpointing = checkpointing
    model.zero_grad()
    torch.manual_seed(0)
    model(views).logit.sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_chunks_give_the_same_tokens(chunk: int) -> None:
    encoder = model_of("mfm").encoder
    views = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    whole = encoder.block_tokens(views)
    sizes: list[int] = []
    encoder.backbone.register_forward_pre_hook(lambda _, images: sizes.append(len(images[0])))
    encoder.backbone.chunk = chunk
    torch.testing.assert_close(encoder.block_tokens(views), whole)
    assert sum(sizes) == 9
    assert max(sizes) == min(chunk, 9)


def test_drop_path_acts_on_a_frozen_backbone_as_the_mode_says() -> None:
    """Upstream freezes by not recording, and trains in train mode."""
    model = SPAI(replace(TINY, drop_path=0.5))
    model.freeze_backbone()
    views = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8)
    for mode, same in ((True, False), (False, True)):
        model.train(mode)
        one, other = (model.encoder.block_tokens(views)[-1] for _ in range(2))
        assert torch.equal(one, other) is same


def test_blocks_after_the_last_in_use_are_not_run() -> None:
    backbone = Backbone((0,), **TINY.vit)
    backbone.blocks[1].register_forward_hook(lambda *_: pytest.fail("the second block ran"))
    assert len(backbone(torch.randn(1, 3, 32, 32))) == 1


def test_the_ratio_of_an_mlp_gives_its_width_again() -> None:
    sizes = [(hidden, width) for width in range(1, 200) for hidden in range(1, 8 * width)]
    assert [pair for pair in sizes if int(pair[1] * ratio_of(*pair)) != pair[0]] == []
    assert any(int(width * (hidden / width)) != hidden for hidden, width in sizes)

"""Towers: CLIP's weights in the layouts of those who publish them, and what is said where they are missing."""

import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from shutil import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spai_runtime.errors import RefusedError
from spai_train.checkpoint import load_checkpoint
from spai_train.commands.convert import run as convert
from spai_train.detectors import rine
from spai_train.models.clip import visual_tower
from spai_train.published import CLIP_OPENAI
from spai_train.tensors import CheckpointError, read
from spai_train.torchscript import read_torchscript
from tests.golden import CHECKPOINT, FOLDER

TOWER = FOLDER / "clip_small.safetensors"
RINE = FOLDER / "rine" / "rine_small_trainable.pth"
CLIPDET = FOLDER / "clipdet" / "clipdet_small.pth"

Convert = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def timms(openai: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in visual_tower(openai).items()}


def transformers(openai: dict[str, Tensor]) -> dict[str, Tensor]:
    """As `CLIPVisionModelWithProjection` of transformers 5.23 names them."""
    found = {}
    for name, tensor in openai.items():
        if name.startswith("visual."):
            for theirs, part in renamed(name.removeprefix("visual."), tensor):
                found[theirs] = part.contiguous()
    return found | {"text_model.embeddings.x": torch.ones(3), "logit_scale": torch.ones([])}


def renamed(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    whole = {
        "class_embedding": "embeddings.class_embedding",
        "positional_embedding": "embeddings.position_embedding.weight",
        "conv1.weight": "embeddings.patch_embedding.weight",
    }
    beginning, _, rest = name.partition(".")
    if name == "proj":
        yield "visual_projection.weight", tensor.T
    elif name in whole:
        yield f"vision_model.{whole[name]}", tensor
    elif beginning in ("ln_pre", "ln_post"):
        yield f"vision_model.{ {'ln_pre': 'pre_layrnorm', 'ln_post': 'post_layernorm'}[beginning] }.{rest}", tensor
    else:
        _, _, block, inside = name.split(".", 3)
        for ours, theirs in (("ln_", "layer_norm"), ("c_fc", "fc1"), ("c_proj", "fc2"), ("attn.out", "self_attn.out")):
            inside = inside.replace(ours, theirs)
        parts = zip("qkv", tensor.chunk(3), strict=True) if "in_proj" in inside else [("", tensor)]
        for letter, part in parts:
            layer = inside.replace("attn.in_proj_", f"self_attn.{letter}_proj.")
            yield f"vision_model.encoder.layers.{block}.{layer}", part


def openais(openai: dict[str, Tensor]) -> dict[str, Tensor]:
    return openai


@pytest.mark.parametrize("layout", [openais, transformers, timms])
@pytest.mark.parametrize("checkpoint", [RINE, CLIPDET], ids=["rine", "clipdet"])
def test_a_tower_in_any_layout(tmp_path: Path, layout: Convert, checkpoint: Path) -> None:
    save_file(layout(load_file(TOWER)), tmp_path / "tower.safetensors")
    wanted = load_checkpoint(checkpoint, tower=TOWER)
    found = load_checkpoint(checkpoint, tower=tmp_path / "tower.safetensors")
    assert found.config == wanted.config
    assert all(torch.equal(tensor, found.state[name]) for name, tensor in wanted.state.items())


def test_a_tensor_of_no_layout(tmp_path: Path) -> None:
    save_file({**load_file(TOWER), "visual.attnpool.weight": torch.ones(2)}, tmp_path / "tower.safetensors")
    with pytest.raises(CheckpointError, match=r"has a tensor attnpool\.weight, which is in no layout"):
        load_checkpoint(RINE, tower=tmp_path / "tower.safetensors")


class Scripted(nn.Module):
    """A tree of modules, as torch.jit writes one; no forward is called."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in state.items():
            *path, last = name.split(".")
            module: nn.Module = self
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, nn.Module())
                module = getattr(module, part)
            module.register_buffer(last, tensor)

    def forward(self, x: Tensor) -> Tensor:
        return x + 1


def torchscript(path: Path, state: dict[str, Tensor]) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is deprecated
        torch.jit.save(torch.jit.trace(Scripted(state), torch.ones(1)), path)
    return path


def test_openais_own_file_is_torchscript(tmp_path: Path) -> None:
    path = torchscript(tmp_path / "tower.pt", {"logit_scale": torch.ones([]), **load_file(TOWER)})
    found = load_checkpoint(RINE, tower=path)
    assert all(
        torch.equal(tensor, found.state[name]) for name, tensor in load_checkpoint(RINE, tower=TOWER).state.items()
    )


def rewritten(source: Path, target: Path, change: Callable[[str, bytes], bytes], compress: str = "") -> Path:
    """The archive with other content; the part whose name ends in `compress` is deflated."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for part in old.infolist():
            deflated = bool(compress) and part.filename.endswith(compress)
            kind = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
            new.writestr(part.filename, change(part.filename, old.read(part)), kind)
    return target


def test_torchscript_that_asks_for_code_is_refused(tmp_path: Path) -> None:
    path = torchscript(tmp_path / "good.pt", {"visual.x": torch.ones(3)})

    def attack(name: str, content: bytes) -> bytes:
        return content.replace(b"ccollections\nOrderedDict", b"cos\nsystem") if name.endswith("data.pkl") else content

    with pytest.raises(RefusedError, match=r"its pickle asks for os\.system, which could run code"):
        read(rewritten(path, tmp_path / "bad.pt", attack))


def test_torchscript_that_is_damaged(tmp_path: Path) -> None:
    path = torchscript(tmp_path / "good.pt", {"visual.x": torch.ones(64)})

    def same(_: str, content: bytes) -> bytes:
        return content

    def shortened(name: str, content: bytes) -> bytes:
        return content[:8] if name.endswith("/data/0") else content

    for change, compress in ((shortened, ""), (same, "/data/0"), (same, "/data.pkl")):
        with pytest.raises(CheckpointError, match="is not a checkpoint that torch can read"):
            read(rewritten(path, tmp_path / "bad.pt", change, compress))


def test_a_missing_tower_says_which_and_where_from(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(copy(RINE, tmp_path))
    for part in ("without its tower", "ViT-L-14.pt", "https://openaipublic.azureedge.net/clip/", "--tower"):
        assert part in str(caught.value)
    with pytest.raises(CheckpointError, match=r"open_clip_pytorch_model\.bin from https://huggingface.co/laion/"):
        load_checkpoint(copy(CLIPDET, tmp_path))
    with pytest.raises(CheckpointError, match=r"cannot read .*absent\.pt: No such file"):
        load_checkpoint(RINE, tower=tmp_path / "absent.pt")


def test_a_tower_beside_the_checkpoint_is_found(tmp_path: Path) -> None:
    checkpoint = Path(copy(CLIPDET, tmp_path))
    torch.save(load_file(TOWER), tmp_path / "open_clip_pytorch_model.bin")
    found = load_checkpoint(checkpoint).tower
    assert found is not None
    assert found.path == tmp_path / "open_clip_pytorch_model.bin"


def test_a_damaged_download_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = torchscript(tmp_path / "ViT-L-14.pt", load_file(TOWER))
    with pytest.raises(CheckpointError, match=r"ViT-L-14\.pt is not the file that was published"):
        load_checkpoint(copy(RINE, tmp_path))
    from spai_runtime.files.digest import sha256_of  # noqa: PLC0415

    published = replace(CLIP_OPENAI, sha256=sha256_of(path))
    monkeypatch.setattr(rine, "SPEC", replace(rine.SPEC, tower=lambda _: published))
    assert load_checkpoint(tmp_path / RINE.name).tower is not None


def test_a_tower_that_nothing_needs(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds all of a SPAI: leave --tower out"):
        load_checkpoint(CHECKPOINT, tower=TOWER)
    whole = tmp_path / "whole.safetensors"
    assert convert(RINE, whole, tower=TOWER) == 0
    with pytest.raises(CheckpointError, match="holds all of a RINE: leave --tower out"):
        load_checkpoint(whole, tower=TOWER)


@pytest.mark.parametrize(
    ("checkpoint", "missing", "message"),
    [
        (RINE, "visual.transformer.resblocks.1.ln_2.bias", "is missing encoder.backbone.blocks.1.norm2.bias"),
        (RINE, "visual.class_embedding", "is missing encoder.backbone.cls_token"),
        (CLIPDET, "visual.ln_post.weight", "is missing encoder.backbone.norm.weight"),
    ],
)
def test_a_tower_that_does_not_fit(tmp_path: Path, checkpoint: Path, missing: str, message: str) -> None:
    tower = load_file(TOWER)
    del tower[missing]
    save_file(tower, tmp_path / "tower.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(checkpoint, tower=tmp_path / "tower.safetensors")


def test_another_detectors_checkpoint_says_which_it_is() -> None:
    with pytest.raises(CheckpointError, match="is a checkpoint of rine, not of clipdet: give --detector rine"):
        load_checkpoint(RINE, "clipdet", TOWER)
    with pytest.raises(CheckpointError, match="is a checkpoint of clipdet, not of rine: give --detector clipdet"):
        load_checkpoint(CLIPDET, "rine", TOWER)


def test_a_file_whose_name_says_nothing(tmp_path: Path) -> None:
    names = {"weights.pth": "clipdet", "model.pth": "clipdet", "latent10k.pth": "latent10k"}
    for file, name in names.items():
        assert load_checkpoint(copy(CLIPDET, tmp_path / file), tower=TOWER).card.name == name


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (lambda content: content.replace(b"q\x00)", b"r\xff\xff\xff\x7f)", 1), None),
        (lambda content: content.replace(b"q\x00)\x81", b"q\x00(K\x01t\x81", 1), "makes nothing else"),
        (lambda content: content[:-1] + b"c__torch__\nM\n(tR.", "calls nothing else"),
        (
            lambda content: content[:-1] + b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
            "150",
        ),  # the opcode of BYTEARRAY8, which torch never writes
    ],
    ids=["a memory of two thousand million places", "arguments", "a call", "bytes without end"],
)
def test_torchscript_that_would_take_all_memory_or_call(
    tmp_path: Path, attack: Callable[[bytes], bytes], said: str | None
) -> None:
    path = torchscript(tmp_path / "good.pt", {"visual.x": torch.ones(3)})

    def change(name: str, content: bytes) -> bytes:
        found = attack(content) if name.endswith("data.pkl") else content
        assert not name.endswith("data.pkl") or found != content
        return found

    bad = rewritten(path, tmp_path / "bad.pt", change)
    if said is None:  # the place is never asked for again
        assert read(bad).state.keys() == {"visual.x"}
        return
    with pytest.raises(CheckpointError):
        read(bad)
    with pytest.raises(Exception, match=said):
        read_torchscript(bad)

"""Checkpoints that nobody trains: upstream's layout or ours, and one thing about it that is not as it should be."""

import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from safetensors.torch import save

from spai_train.checkpoint import Card
from spai_train.detectors.spai.model import SPAI
from spai_train.detectors.spai.upstream import to_content
from tests.support.models import UNEVEN

Content = dict[Any, Any]
Change = Callable[[Content], Any]

NORM, FIRST = "norm.bias", "mfvit.vit.patch_embed.proj.weight"
MASK = "mfvit.frequencies_mask"
OURS = "head.norm.bias"
QKV = "encoder.backbone.blocks.0.attn.qkv.bias"


def saved(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def upstream(change: Change) -> bytes:
    """Upstream's layout after a change, which may give other content."""
    torch.manual_seed(0)
    content: Content = to_content(SPAI(UNEVEN))
    content["config"] = json.loads(json.dumps(content["config"]))
    other = change(content)
    return saved(content if other is None else other)


def with_tensor(name: str, change: Callable[[torch.Tensor], Any]) -> bytes:
    def changed(content: Content) -> None:
        content["model"][name] = change(content["model"][name])

    return upstream(changed)


def with_setting(path: str, value: Any) -> bytes:
    def changed(content: Content) -> None:
        *sections, name = path.split(".")
        settings = content["config"]["MODEL"]
        for section in sections:
            settings = settings[section]
        settings[name] = value

    return upstream(changed)


def with_part(name: str, value: Any) -> bytes:
    return upstream(lambda content: content.update({name: value}))


def bare(change: Change) -> bytes:
    """A state dict and nothing else."""

    def changed(content: Content) -> Any:
        state = content["model"]
        change(state)
        return state

    return upstream(changed)


def ours(
    header: Any = None, state: dict[str, torch.Tensor] | None = None, text: str | None = None, **changes: Any
) -> bytes:
    """Our .safetensors with another header, or tensors."""
    torch.manual_seed(0)
    model = SPAI(UNEVEN)
    standard = {"detector": "spai", "config": asdict(UNEVEN), "card": asdict(Card()), **changes}
    header = json.dumps(standard if header is None else header) if text is None else text
    return save({**model.state_dict(), **(state or {})}, {"spai": header})


def own_names(name: str, tensor: torch.Tensor | None) -> bytes:
    """A state dict in our names and nothing else, with another tensor of that name, or none."""
    torch.manual_seed(0)
    state = {**SPAI(replace(UNEVEN, blocks=(0, 1, 2))).state_dict(), name: tensor}
    return saved({name: tensor for name, tensor in state.items() if tensor is not None})


def config(**changes: Any) -> bytes:
    return ours(config={**asdict(UNEVEN), **changes})


def card(**changes: Any) -> bytes:
    return ours(card={**asdict(Card()), **changes})


def raw(header: Any, data: bytes = b"") -> bytes:
    """A .safetensors written by hand."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def one(dtype: str = "F32", shape: object = (1,), offsets: object = (0, 4)) -> Content:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def expanded(_: torch.Tensor) -> torch.Tensor:
    """A view of one number that claims to be many."""
    return torch.zeros(1).expand(1 << 40)


def pruned(pattern: str) -> Change:
    def changed(content: Content) -> None:
        content["model"] = {name: tensor for name, tensor in content["model"].items() if pattern not in name}

    return changed


def many_blocks(content: Content) -> None:
    content["model"] |= {f"mfvit.vit.blocks.{index}.norm1.bias": torch.zeros(24) for index in range(3000)}


def filled(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: torch.full_like(tensor, value)


def compressed(content: bytes) -> bytes:
    """What torch.save wrote, as an archive whose parts are compressed: a small file that becomes a large one."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as other:
        for name in archive.namelist():
            other.writestr(name, archive.read(name))
    return stream.getvalue()


PICKLES: dict[str, Callable[[], bytes]] = {
    "no dictionary": lambda: saved(7),
    "a tensor alone": lambda: saved(torch.ones(3)),
    "None": lambda: saved(None),
    "a plain pickle": lambda: pickle.dumps({"model": 5}),
    "a pickle of nothing": lambda: pickle.dumps(None),
    "an opcode that is none": lambda: b"\x80\x02\xff.",
    "a pickle that pops nothing": lambda: b"\x80\x020000.",
    "a pickle that ends early": lambda: b"\x80\x02}q\x00X\x05\x00\x00\x00mod",
    "a memo that is not there": lambda: b"\x80\x02h\x07.",
    "a pickle of deep lists": lambda: b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "a config that is a list": lambda: with_part("config", [1, 2]),
    "a config that is a string": lambda: with_part("config", "spai"),
    "a config that is a number": lambda: with_part("config", 5),
    "a config that is a tensor": lambda: with_part("config", torch.ones(3)),
    "a model that is None": lambda: with_part("model", None),
    "a model that is a list": lambda: with_part("model", [torch.ones(1)]),
    "a model that is a tensor": lambda: with_part("model", torch.ones(3)),
    "a model of no tensors": lambda: with_part("model", {"a": 5}),
    "a model of models": lambda: upstream(lambda content: {"model": content}),
    "names that are integers": lambda: upstream(lambda c: {"model": dict(enumerate(c["model"].values()))}),
    "names that are bytes": lambda: upstream(lambda c: {"model": {n.encode(): t for n, t in c["model"].items()}}),
    "names of control characters": lambda: bare(lambda state: state.update({"mfvit.\x1b[2J\n": torch.ones(1)})),
    "a name of a million characters": lambda: bare(lambda state: state.update({"mfvit." + "x" * 10**6: torch.ones(1)})),
    "a section that is a list": lambda: with_setting("VIT", [1]),
    "a section that is None": lambda: with_setting("FRE", None),
    "a section that is a string": lambda: with_setting("PATCH_VIT", "x"),
    "no heads": lambda: with_setting("VIT.NUM_HEADS", 0),
    "-1 heads": lambda: with_setting("VIT.NUM_HEADS", -1),
    "heads in words": lambda: with_setting("VIT.NUM_HEADS", "two"),
    "2^70 heads": lambda: with_setting("VIT.NUM_HEADS", 2**70),
    "heads that do not divide": lambda: with_setting("VIT.NUM_HEADS", 5),
    "half a head": lambda: with_setting("VIT.NUM_HEADS", 0.5),
    "heads that are none": lambda: with_setting("VIT.NUM_HEADS", None),
    "heads that are true": lambda: with_setting("VIT.NUM_HEADS", True),
    "layers in words": lambda: with_setting("VIT.INTERMEDIATE_LAYERS", "012"),
    "a layer that is not there": lambda: with_setting("VIT.INTERMEDIATE_LAYERS", [0, 99]),
    "a layer below": lambda: with_setting("VIT.INTERMEDIATE_LAYERS", [-1, 0]),
    "a layer twice": lambda: with_setting("VIT.INTERMEDIATE_LAYERS", [0, 0]),
    "layers backwards": lambda: with_setting("VIT.INTERMEDIATE_LAYERS", [2, 0]),
    "no layers": lambda: with_setting("VIT.INTERMEDIATE_LAYERS", []),
    "layers that are a number": lambda: with_setting("VIT.INTERMEDIATE_LAYERS", 3),
    "a layer in a layer": lambda: with_setting("VIT.INTERMEDIATE_LAYERS", [[0], 2]),
    "a stride below 0": lambda: with_setting("PATCH_VIT.PATCH_STRIDE", -1),
    "a stride of 2^70": lambda: with_setting("PATCH_VIT.PATCH_STRIDE", 2**70),
    "a stride in words": lambda: with_setting("PATCH_VIT.PATCH_STRIDE", "far"),
    "a radius in words": lambda: with_setting("FRE.MASKING_RADIUS", "16"),
    "a radius of 0": lambda: with_setting("FRE.MASKING_RADIUS", 0),
    "a radius that is no number": lambda: with_setting("FRE.MASKING_RADIUS", float("nan")),
    "a radius without end": lambda: with_setting("FRE.MASKING_RADIUS", float("inf")),
    "a dropout of 2": lambda: with_setting("SID_DROPOUT", 2.0),
    "a dropout that is no number": lambda: with_setting("SID_DROPOUT", float("nan")),
    "a dropout in words": lambda: with_setting("SID_DROPOUT", "half"),
    "a drop path of -1": lambda: with_setting("DROP_PATH_RATE", -1.0),
    "a sparse tensor": lambda: with_tensor(NORM, lambda tensor: tensor.to_sparse()),
    "a compressed sparse tensor": lambda: with_tensor(FIRST, lambda tensor: tensor[:, 0, 0].to_sparse_csr()),
    "a tensor without data": lambda: with_tensor(NORM, lambda tensor: tensor.to("meta")),
    "a quantised tensor": lambda: with_tensor(NORM, lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.quint8)),
    "a nested tensor": lambda: with_tensor(NORM, lambda tensor: torch.nested.nested_tensor([tensor, tensor[:2]])),
    "a tensor that claims to be many": lambda: with_tensor(NORM, expanded),
    "complex weights": lambda: with_tensor(NORM, lambda tensor: tensor.to(torch.complex64)),
    "integer weights": lambda: with_tensor(NORM, lambda tensor: tensor.long()),
    "boolean weights": lambda: with_tensor(NORM, lambda tensor: tensor.bool()),
    "8-bit weights": lambda: with_tensor(NORM, lambda tensor: tensor.to(torch.float8_e4m3fn)),
    "weights that are no numbers": lambda: with_tensor(NORM, filled(float("nan"))),
    "weights without end": lambda: with_tensor("mfvit.vit.blocks.0.attn.q_bias", filled(float("-inf"))),
    "a bias without a side": lambda: with_tensor("mfvit.vit.blocks.0.attn.q_bias", lambda _: torch.tensor(1.0)),
    "a bias of two sides": lambda: with_tensor("mfvit.vit.blocks.0.attn.v_bias", lambda tensor: tensor[None]),
    "patches without a side": lambda: with_tensor(FIRST, lambda _: torch.tensor(1.0)),
    "patches of no width": lambda: with_tensor(FIRST, lambda tensor: tensor[:0]),
    "positions of two sides": lambda: with_tensor("mfvit.vit.pos_embed", lambda tensor: tensor[0]),
    "one position": lambda: with_tensor("mfvit.vit.pos_embed", lambda tensor: tensor[:, :1]),
    "no position": lambda: with_tensor("mfvit.vit.pos_embed", lambda tensor: tensor[:, :0]),
    "positions of no square": lambda: with_tensor("mfvit.vit.pos_embed", lambda tensor: tensor[:, :-1]),
    "queries of one side": lambda: with_tensor("patch_aggregator", lambda tensor: tensor.flatten()),
    "no queries": lambda: with_tensor("patch_aggregator", lambda tensor: tensor[:0]),
    "a mask of one side": lambda: with_tensor(MASK, lambda tensor: tensor[0]),
    "a mask without a side": lambda: with_tensor(MASK, lambda tensor: tensor[0, 0]),
    "a complex mask": lambda: with_tensor(MASK, lambda tensor: tensor.to(torch.complex64)),
    "a mask of no numbers": lambda: with_tensor(MASK, lambda tensor: torch.full(tensor.shape, float("nan"))),
    "a bare mask of no numbers": lambda: bare(lambda state: state.update({MASK: state[MASK] * float("nan")})),
    "a bare mask of no size": lambda: bare(lambda state: state.update({MASK: state[MASK][:0, :0]})),
    "no first layer of the head": lambda: upstream(pruned("cls_head.head.0.")),
    "no blocks": lambda: upstream(pruned("mfvit.vit.blocks")),
    "no projectors": lambda: upstream(pruned("projectors")),
    "3,000 blocks": lambda: upstream(many_blocks),
    "our biases without a side": lambda: own_names(QKV, torch.tensor(1.0)),
    "our biases of one number": lambda: own_names(QKV, torch.ones(1)),
    "our biases of no number": lambda: own_names(QKV, torch.ones(0)),
    "our biases, complex": lambda: own_names(QKV, torch.ones(72, dtype=torch.complex64)),
    "our blocks without the second layer": lambda: own_names("encoder.backbone.blocks.0.mlp.fc2.weight", None),
    "our scale of DINOv2's": lambda: own_names("encoder.backbone.blocks.0.ls1.gamma", torch.ones(2, 2)),
    "an archive that is compressed": lambda: compressed(upstream(lambda _: None)),
    "an archive of nothing": lambda: b"PK\x05\x06" + bytes(18),
    "an ordered dictionary of nothing": lambda: saved(OrderedDict()),
}

SAFETENSORS: dict[str, Callable[[], bytes]] = {
    "a header of lists in lists": lambda: ours(text="[" * 5000 + "]" * 5000),
    "a header of objects in objects": lambda: ours(text='{"config":' * 5000 + "1" + "}" * 5000),
    "a header that is no JSON": lambda: ours(text="{"),
    "a header that is a list": lambda: ours(header=[1]),
    "a header that is a string": lambda: ours(header="spai"),
    "a header with half a surrogate": lambda: ours(text='{"detector": "\\ud800"}'),
    "a detector that is a number": lambda: ours(detector=5),
    "a detector of control characters": lambda: ours(detector="\x1b[2J\n"),
    "a detector of a million characters": lambda: ours(detector="d" * 10**6),
    "a config that is a list": lambda: ours(config=[1]),
    "a config that is None": lambda: ours(config=None),
    "a config of control characters": lambda: config(**{"\x1b[2J\n": 1}),
    "a width of 2^40": lambda: config(width=2**40),
    "a width of 2^70": lambda: config(width=2**70),
    "a depth of a million": lambda: config(depth=10**6),
    "a depth of 0": lambda: config(depth=0),
    "a tile of a million": lambda: config(tile_size=10**6),
    "an odd tile": lambda: config(tile_size=33, patch_size=33),
    "a patch larger than the tile": lambda: config(patch_size=64),
    "patches that do not divide": lambda: config(patch_size=7),
    "a patch of 0": lambda: config(patch_size=0),
    "-2 heads": lambda: config(heads=-2),
    "heads that do not divide": lambda: config(heads=7),
    "attention heads that do not divide": lambda: config(attention_heads=5),
    "an attention of no width": lambda: config(attention_width=0),
    "blocks that are not there": lambda: config(blocks=[0, 7]),
    "no blocks": lambda: config(blocks=[]),
    "a million blocks": lambda: config(blocks=list(range(10**6))),
    "no projection layers": lambda: config(projection_layers=0),
    "a million projection layers": lambda: config(projection_layers=10**6),
    "a head ratio of 2^40": lambda: config(head_ratio=2**40),
    "an MLP ratio of 1e300": lambda: config(mlp_ratio=1e300),
    "an MLP ratio of -1": lambda: config(mlp_ratio=-1.0),
    "an MLP ratio of next to nothing": lambda: config(mlp_ratio=1e-9),
    "a radius that is no number": lambda: config(mask_radius=float("nan")),
    "a dropout without end": lambda: config(dropout=float("inf")),
    "a negative minimum": lambda: config(minimum_tiles=-1),
    "a stride below 0": lambda: config(tile_stride=-1),
    "a threshold of 7": lambda: card(threshold=7.0),
    "a threshold that is no number": lambda: card(threshold=float("nan")),
    "a name of a million characters": lambda: card(name="n" * 10**6),
    "complex weights": lambda: ours(state={OURS: torch.ones(26, dtype=torch.complex64)}),
    "integer weights": lambda: ours(state={OURS: torch.ones(20, dtype=torch.int64)}),
    "weights that are no numbers": lambda: ours(state={OURS: torch.full((20,), float("nan"))}),
    "no tensors": lambda: save({}, {"spai": "{}"}),
    "a header larger than the file": lambda: struct.pack("<Q", 1 << 40) + b"{}",
    "a header of no length": lambda: struct.pack("<Q", 0),
    "a header that is an array": lambda: raw([]),
    "a header that is nested": lambda: raw(b'{"a":' * 5000 + b"1" + b"}" * 5000),
    "metadata that is a list": lambda: raw({"__metadata__": [1], **one()}, bytes(4)),
    "metadata that is nested": lambda: raw(b'{"__metadata__":{"spai":' + b"[" * 5000 + b"]" * 5000 + b"}}"),
    "a name twice": lambda: raw(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        bytes(8),
    ),
    "offsets backwards": lambda: raw(one(offsets=(4, 0)), bytes(4)),
    "offsets outside": lambda: raw(one(offsets=(0, 1 << 40)), bytes(4)),
    "offsets below": lambda: raw(one(offsets=(-4, 0)), bytes(4)),
    "a shape of 2^62": lambda: raw(one(shape=(1 << 62, 1 << 62)), bytes(4)),
    "a negative shape": lambda: raw(one(shape=(-1,)), bytes(4)),
    "a shape that is none": lambda: raw(one(shape="x"), bytes(4)),
    "a type that is none": lambda: raw(one(dtype="F7"), bytes(4)),
    "4-bit numbers": lambda: raw(one(dtype="F4", shape=(8,)), bytes(4)),
    "8-bit exponents": lambda: raw(one(dtype="F8_E8M0", shape=(4,)), bytes(4)),
    "more than its header names": lambda: raw(one(), bytes(99)),
}

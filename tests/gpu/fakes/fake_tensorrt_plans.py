"""The plans that the fake TensorRT runs: a graph with a header. No TensorRT builds them; tests write them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.gpu.fakes.fake_tensorrt_types import FakeTensorRT

MAGIC = b"ftrt"
Shapes = Sequence[tuple[int, ...]]


@dataclass
class Header:
    """What a plan says beside its graph.

    :param flags: names of BuilderFlags that it was built with
    :param profiles: input → least, best and largest shape
    :param layers: what the engine inspector says of it
    """

    version: str
    capability: tuple[int, int]
    flags: Sequence[str] = ()
    profiles: Sequence[Mapping[str, Shapes]] = ()
    layers: Sequence[Mapping[str, Any]] = field(default_factory=list)


def write_plan(header: Header, graph: bytes) -> bytes:
    text = json.dumps(asdict(header)).encode()
    return MAGIC + len(text).to_bytes(8, "little") + text + graph


def read_plan(plan: bytes) -> tuple[Header, bytes] | None:
    """Its header and graph; None if it is no plan."""
    if not plan.startswith(MAGIC):
        return None
    length = int.from_bytes(plan[4:12], "little")
    fields = json.loads(plan[12 : 12 + length])
    return Header(**{**fields, "capability": tuple(fields["capability"])}), plan[12 + length :]


def plan_of(fake: FakeTensorRT, graph: Path, name: str, shapes: Shapes, *flags: str) -> bytes:
    """A plan for the current GPU. :param shapes: least, best and largest of the input of that name"""
    return write_plan(Header(fake.version, fake.capability, flags, [{name: shapes}]), graph.read_bytes())

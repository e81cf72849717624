"""TensorRT for RTX's parser and builder as `tensorrt`, on a machine with a fake GPU: the API of both is one."""

import importlib.machinery
import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest

from tests.gpu.fakes.fake_machine import Machine


@dataclass
class Builds:
    """Knobs, and what happened.

    :param log: that the last builder was given
    :param instead: what a build returns at once; None: it is built
    :param fails: what the builder logs, and builds nothing
    :param warns: what is logged when a network is made: (severity, message)
    :param networks: that were built, and their configurations and profiles, in the same order
    :param gpus: that were current when they were built
    """

    machine: Machine
    log: Any = None
    instead: bytes | None = None
    fails: str | None = None
    warns: list[tuple[Any, str]] = field(default_factory=list)
    networks: list[Any] = field(default_factory=list)
    configs: list[Any] = field(default_factory=list)
    profiles: list[Any] = field(default_factory=list)
    gpus: list[int] = field(default_factory=list)


def install(monkeypatch: pytest.MonkeyPatch, machine: Machine, version: str = "11.4.0.106") -> Builds:
    """Until the test ends. :param version: that it claims to be of"""
    real: Any = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx, which is for Linux on x86-64")
    builds = Builds(machine)

    class Builder(real.Builder):  # type: ignore[misc, name-defined]
        """Remembers what it builds; whatever else it does is real."""

        def __init__(self, logger: Any) -> None:
            super().__init__(logger)
            builds.log = logger

        def create_network(self, flags: int = 0) -> Any:
            for severity, message in builds.warns:
                builds.log.log(severity, message)
            return super().create_network(flags)

        def create_optimization_profile(self) -> Any:
            builds.profiles.append(super().create_optimization_profile())
            return builds.profiles[-1]

        def build_serialized_network(self, network: Any, config: Any) -> Any:
            builds.networks.append(network)
            builds.configs.append(config)
            builds.gpus.append(machine.current)
            if builds.fails:
                builds.log.log(real.ILogger.ERROR, builds.fails)
                return None
            return builds.instead or super().build_serialized_network(network, config)

    made: Any = ModuleType("tensorrt")
    vars(made).update({name: value for name, value in vars(real).items() if not name.startswith("__")})
    made.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None)
    made.__version__, made.Builder = version, Builder
    monkeypatch.setitem(sys.modules, "tensorrt", made)
    return builds

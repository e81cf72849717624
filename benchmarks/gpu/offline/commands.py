"""A kit for half an hour on a GPU machine without a network: `pack` here, `gather` and `run` there, `collect` here."""

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import json_files
from goals import lines

from gpu.offline.collect import collect
from gpu.offline.device import Device, NoGpuError, first
from gpu.offline.environment import environment
from gpu.offline.pack import ARCHITECTURE, LACKING, PYTHON, Wanted, pack
from gpu.offline.parts import CONTENTS, Contents, PackError, gather, sites, unpack
from gpu.offline.runner import PASSED, run
from gpu.offline.steps import STEPS, Step

KIT, WORK = Path("runs/gpu-kit"), Path(tempfile.gettempdir()) / "spai-gpu"
ALL = "all"


def main(arguments: Sequence[str] | None = None, variables: Mapping[str, str] = os.environ) -> int:
    """:returns: 0; 1 where a step did not pass; 2 where there is no GPU, or a command cannot do what it is asked for"""
    given = _parser(variables).parse_args(arguments)
    command: Callable[[argparse.Namespace, Mapping[str, str]], int] = given.command
    try:
        return command(given, variables)
    except (PackError, NoGpuError) as error:
        _say(str(error), sys.stderr)
        return 2


def _parser(variables: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 benchmarks/gpu/offline", description=__doc__)
    commands = parser.add_subparsers(required=True)
    _packing(commands.add_parser("pack", help="fetch what that machine lacks, in parts of at most 40 MB"))
    _gathering(commands.add_parser("gather", help="copy one part to where it lives as long as the machine"))
    _running(commands.add_parser("run", help="run steps and write what comes of each"), variables)
    _collecting(commands.add_parser("collect", help="make one result file of the outputs of several runs"))
    return parser


def _packing(parser: argparse.ArgumentParser) -> None:
    add, named = parser.add_argument, " ".join(LACKING)
    add("folder", type=Path, nargs="?", default=KIT, help="for the parts a, b, … (default: %(default)s)")
    add("--python", default=PYTHON, metavar="3.N", help="Python's version there (default: %(default)s)")
    add("--architecture", type=int, default=ARCHITECTURE, help="compute capability × 10 of the GPU (%(default)s)")
    add("--whole", action="store_true", help="keep the machine code for all GPUs: more parts")
    add("--with", dest="lacking", nargs="*", default=LACKING, metavar="NAME", help=f"packages (default: {named})")
    parser.set_defaults(command=_pack)


def _gathering(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("part", type=Path, help="a folder that pack made, or the one they lie in")
    _work(parser)
    parser.set_defaults(command=_gather)


def _running(parser: argparse.ArgumentParser, variables: Mapping[str, str]) -> None:
    add, names = parser.add_argument, [step.name for step in STEPS]
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(["steps:", *(f"  {step.name:12} {step.limit:3g} s  {step.what}" for step in STEPS)])
    add("steps", nargs="+", choices=[*names, ALL], metavar="STEP", help=f"one or more of these, or {ALL}; see below")
    output = Path(variables.get("OUT") or "runs/gpu")
    add("--output", type=Path, default=output, help="gets a folder of each step (default: $OUT, else runs/gpu)")
    add("--results", type=Path, help="gets the result file (default: the output)")
    add("--limit", type=float, metavar="SECONDS", help="of each step")
    _work(parser)
    parser.set_defaults(command=_run)


def _collecting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "outputs", type=Path, nargs="+", metavar="OUTPUT", help="of runs; a later one counts for a step"
    )
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="(default: %(default)s)")
    parser.set_defaults(command=_collect)


def _work(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--work", type=Path, default=WORK, help="where parts are gathered (default: %(default)s)")


def _pack(given: argparse.Namespace, _: Mapping[str, str]) -> int:
    architecture = None if given.whole else given.architecture
    for part in pack(given.folder, Wanted(given.python, architecture, given.lacking)):
        _say(f"{part}: {sum(path.stat().st_size for path in part.iterdir()) / 1e6:.1f} MB")
    return 0


def _gather(given: argparse.Namespace, _: Mapping[str, str]) -> int:
    gather(given.part, given.work)
    missing = unpack(given.work)
    _say(f"missing yet: {', '.join(missing)}" if missing else "everything is there")
    return 0


def _run(given: argparse.Namespace, variables: Mapping[str, str]) -> int:
    device = first()
    _check(given.work, device)
    _say(f"{device.name}, compute capability {device.capability / 10}")
    packages = list(sites(given.work))
    chosen = [_limited(step, given.limit) for step in STEPS if step.name in given.steps or ALL in given.steps]
    results = given.results or given.output
    outcomes = run(chosen, given.output, environment(packages, variables), lambda: collect([given.output], results))
    for outcome in outcomes:
        _say(f"{outcome['state']}  {outcome['step']}, {outcome['seconds']} s: {outcome['last_line']}")
    _say_goals(collect([given.output], results))
    return int(any(outcome["state"] != PASSED for outcome in outcomes))


def _collect(given: argparse.Namespace, _: Mapping[str, str]) -> int:
    files = collect(given.outputs, given.results)
    if not files:
        raise PackError(f"no step left a result of the published model in {', '.join(map(str, given.outputs))}")
    _say_goals(files)
    return 0


def _check(work: Path, device: Device) -> None:
    """:raises PackError: what was gathered is for another machine"""
    if not (work / CONTENTS).exists():
        return  # it lacks nothing
    packed, python = Contents.read(work), platform.python_version().rpartition(".")[0]
    if packed.python != python:
        raise PackError(
            f"this is Python {python}, and what was gathered is for {packed.python}: pack --python {python}"
        )
    if packed.architecture and not device.runs(packed.architecture):
        found = f"{device.name} has compute capability {device.capability / 10}"
        raise PackError(f"{found}, and ONNX Runtime was packed for {packed.architecture / 10}: pack --whole")


def _limited(step: Step, limit: float | None) -> Step:
    return replace(step, limit=limit or step.limit)


def _say_goals(files: Sequence[Path]) -> None:
    for path in files:
        _say("\n".join([str(path), *lines(json_files.read(path)["goals"])]))


def _say(text: str, stream: TextIO | None = None) -> None:
    print(text, file=stream or sys.stdout, flush=True)

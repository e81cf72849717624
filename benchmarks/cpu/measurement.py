"""A whole measurement of this machine's CPU, of what the settings want."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from conftest import machine
from goals import Row, summary
from json_files import rounded

from cpu import encoder, latency, processor, run, scores, settings, start
from cpu.bench import Bench, Rows
from cpu.contender import CONTENDERS
from cpu.exports import Exports
from cpu.goals import GOALS
from cpu.results import Results
from cpu.settings import Settings
from spai_runtime.cores import cores

PARTS: Mapping[str, Callable[[Bench, Rows], None]] = {
    settings.ENCODER: encoder.measure,
    settings.SCORES: scores.measure,
    settings.LATENCY: latency.measure,
    settings.START: start.measure,
    settings.RUN: run.measure,
    settings.BESIDE: run.measure_beside,
}


def measure(wanted: Settings, folder: Path | None) -> Results:
    """:param folder: of the result file; None writes none
    :returns: what is in it
    """
    torch.set_num_threads(cores())  # of which torch counts more, where a container limits its time
    facts: Row = {"model": wanted.model, "settings": asdict(wanted), "machine": machine()}
    facts["processor"] = processor.described(facts["machine"])
    results = Results(folder, facts)
    contenders = [one for one in CONTENDERS if wanted.wants(one.name)]
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(wanted, results, Exports(wanted.model, wanted.scenes), Path(place))
        rows = [(results.begin(one), one) for one in contenders]
        present = [(row, one) for row, one in rows if "absent" not in row]
        for part in wanted.parts:
            PARTS[part](bench, present)
    results.content["goals"] = summary(rounded(results.content), GOALS)  # as whoever reads the file finds it
    results.finish()
    return results

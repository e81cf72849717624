"""What each detector costs: `spai-run`'s pipeline over JPEGs of a megapixel, published sizes, random weights.

Beside it stands what its encoder alone takes for the same views. Two detectors over one folder are compared with the
sum of their encoders: decoding happens once.
"""

import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from conftest import Report
from measure import Times, ratio, take_turns
from models import exported_detector
from photographs import write_photographs
from runs import encode, run, views_of

from spai_runtime.detector import Detector
from spai_runtime.files.sources import Item

WIDTH, HEIGHT = 1152, 864  # pixels: a megapixel, 15 tiles of SPAI
IMAGES = {"spai": 1, "rine": 4, "clipdet": 4, "community-forensics": 12, "dda": 3}  # of a round: seconds each
PAIR, PAIR_IMAGES, PAIR_TARGET = ("clipdet", "community-forensics"), 8, 1.05
ROUNDS = int(os.environ.get("SPAI_BENCH_ROUNDS", "3"))


def test_detectors(benchmark: Any, report: Report, tmp_path: Path) -> None:
    paths = write_photographs(tmp_path / "photographs", WIDTH, HEIGHT, max(IMAGES.values()))
    items = [Item(path, path.name) for path in paths]
    with ExitStack() as stack:
        detectors = {name: stack.enter_context(Detector.load(exported_detector(name), device="cpu")) for name in IMAGES}
        contenders = {name: partial(run, [detectors[name]], items[:count]) for name, count in IMAGES.items()}
        for name, count in IMAGES.items():
            contenders[f"{name} encoder"] = partial(encode, detectors[name], views_of(detectors[name], items[:count]))
        for detector in detectors.values():
            encode(detector, views_of(detector, items[:1]))
        times: dict[str, Times] = benchmark.pedantic(take_turns, args=(contenders, ROUNDS), rounds=1)
    per_image = {name: median(times[name].wall) / count for name, count in IMAGES.items()}
    spai = [seconds / IMAGES["spai"] for seconds in times["spai"].wall]
    report(
        "detectors",
        images_per_s={name: 1 / seconds for name, seconds in per_image.items()},
        times_spai={
            name: ratio(spai, [seconds / count for seconds in times[name].wall]) for name, count in IMAGES.items()
        },
        run_against_encoder={name: ratio(times[name].wall, times[f"{name} encoder"].wall) for name in IMAGES},
        megapixels=WIDTH * HEIGHT / 1e6,
        precision="fp32",
        rounds=ROUNDS,
    )


def test_two_detectors(benchmark: Any, report: Report, tmp_path: Path) -> None:
    paths = write_photographs(tmp_path / "photographs", WIDTH, HEIGHT, PAIR_IMAGES)
    items = [Item(path, path.name) for path in paths]
    with ExitStack() as stack:
        both = [stack.enter_context(Detector.load(exported_detector(name), device="cpu")) for name in PAIR]
        views = [views_of(detector, items) for detector in both]

        def encoders() -> None:
            for detector, batches in zip(both, views, strict=True):
                encode(detector, batches)

        encoders()
        contenders = {"run": partial(run, both, items), "encoders": encoders}
        times: dict[str, Times] = benchmark.pedantic(take_turns, args=(contenders, ROUNDS), rounds=1)
    report(
        "detectors-pair",
        run_s=median(times["run"].wall),
        encoders_s=median(times["encoders"].wall),
        ratio=ratio(times["run"].wall, times["encoders"].wall),
        ratio_of_cpu_time=ratio(times["run"].cpu, times["encoders"].cpu),
        target=PAIR_TARGET,
        detectors=list(PAIR),
        images=PAIR_IMAGES,
        rounds=ROUNDS,
    )

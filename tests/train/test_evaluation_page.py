"""report.html of `evaluate`: the figures of metrics.json, the images that are wrong, and text of others as text."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Run
from tests.support.images import Write
from tests.support.pages import ATTACKS, Page


@pytest.fixture
def table(photo: Write) -> Path:
    """Eight images of two sources a class."""
    lines = ["image,class,split,source"]
    for index in range(8):
        path = photo(f"{index}.png", 60 + 10 * index, 90, seed=index)
        lines.append(f"{path.name},{index % 2},test,{('camera', 'flux', 'phone', 'sora')[index % 4]}")
    (path.parent / "images.csv").write_text("\n".join(lines) + "\n")
    return path.parent / "images.csv"


def content(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


def test_the_page_has_the_figures_and_the_plots(call: Run, table: Path, tiny_detector: Path) -> None:
    output = table.parent / "out"
    done = call("evaluate", table, "--engine", tiny_detector, "--jpeg", 50, "--output", output, "--resamples", 20)
    assert done.code == 0, done.stderr
    page = Page(output / "report.html")
    metrics = content(output)
    for result in metrics["results"]:
        for source in result["sources"]:
            assert source["source"] in page.text
            for interval in source.get("metrics", {}).values():
                assert f"{interval['value']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]" in page.text
        assert f"{result['mean']['auc']['value']:.3f}" in page.text
    assert metrics["threshold"]["source"] in page.text
    shown = [address for address in page.values("img", "src") if address.startswith("data:image/png;base64,")]
    assert len(shown) == len([*output.glob("*.png")]) == 3


def test_images_that_are_wrong_come_first(call: Run, table: Path, tiny_detector: Path) -> None:
    """With a threshold below every score all real images are false alarms, the highest first, and none is missed."""
    output = table.parent / "out"
    call("evaluate", table, "--engine", tiny_detector, "--threshold", 0, "--output", output, "--resamples", 20)
    rows = [line.split(",") for line in (output / "scores.csv").read_text().splitlines()[1:]]
    false = sorted((-float(row[4]), row[0]) for row in rows if row[1] == "0")
    page = Page(output / "report.html")
    alts = [alt for alt in page.values("img", "alt") if alt.startswith("Picture of ")]
    shown = [alt.removeprefix("Picture of ") for alt in alts]
    assert shown == [name for _, name in false]
    assert len([address for address in page.values("img", "src") if "webp" in address]) == 4
    assert "Generated images labelled “real” None." in page.text


def test_several_detectors_on_one_page(call: Run, table: Path, tiny_detector: Path) -> None:
    output = table.parent / "out"
    engines = "--engine", tiny_detector, "--engine", tiny_detector
    assert call("evaluate", table, *engines, "--output", output, "--resamples", 20).code == 0
    page = Page(output / "report.html")
    assert "Evaluation of tiny, tiny_2" in page.text
    assert "How often two detectors disagree" in page.text
    for report in content(output)["reports"]:
        assert report["detector"]["name"] in page.text


def test_text_of_others_stays_text(photo: Write, call: Run, tiny_detector: Path) -> None:
    """All attacks as sources, splits and names of files: the page has the elements that harmless text gives."""

    def page_of(folder: str, texts: Sequence[str]) -> Page:
        path = photo(f"{folder}/a.png", 60, 90)
        with (path.parent / "images.csv").open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["image", "class", "split", "source"])
            lines.writerow(["a.png", 0, "test", texts[0]])
            lines.writerows([name, 1, "test", text] for text in texts for name in ("a.png", text))
        options = "--engine", tiny_detector, "--threshold", 0, "--resamples", 2, "--output", path.parent / "out"
        assert call("evaluate", path.parent / "images.csv", *options).code == 3, "most files are not there"
        return Page(path.parent / "out" / "report.html")

    attacks = [attack for attack in ATTACKS if "\x00" not in attack]
    harmless = page_of("harmless", [f"text {index}" for index in range(len(attacks))])
    hostile = page_of("hostile", attacks)
    assert hostile.elements == harmless.elements
    assert hostile.parts["script"] == harmless.parts["script"]

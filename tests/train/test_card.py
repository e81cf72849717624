"""The model card: what the hub and a Markdown reader make of it, whatever stands in detector.json."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from markdown_it.token import Token

from spai_export.directory import ExportReport, describe, writing
from spai_runtime.calibration import Platt
from spai_runtime.manifest import Accuracy, Artifact, Graph, Manifest, Spread, Threshold
from spai_runtime.text import visible
from spai_runtime.views import CentreCrop, TenCrop, WholeImage
from spai_train import card
from spai_train.evaluation.calibration import Calibrated
from tests.support.manifests import MANIFEST, SHA

DEMO = Path(__file__).parents[2] / "weights" / "demo"
README, DETECTOR = card.FILE_NAME, "detector.json"
FAILED = Accuracy("torch, fp32, cpu", "an engine", 7, 9, "photographs", Spread(0.25, 0.125), 3.0, 2, 0.01, passed=False)

ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "--> <b>out of the comment</b> <!--",
    "a\n---\nlicense: mit\n---\n# b",
    "a\r\n\r\n[b](javascript:alert(1))",
    "[a](javascript:alert(1)) ![b](http://c/d.png) [e]: f",
    "a | b | c",
    "`code` ``` **bold** _it_ ~~gone~~ __x__",
    "&lt;b&gt; &#60;b&#62; $x^2$ \\( \\alpha \\)",
    "{{ 7 * 7 }} {% for x in y %}",
    'a": ["x"], "b\': - {c: d} # e',
    "\u202egnp.exe\u202c \x1b[31m \x85 \u2028 \udcff \x00",
    "!!python/object/apply:os.system ['x']",
    "x" * 3000,
]


def shape(tokens: list[Token]) -> list[tuple[str, str, str]]:
    """Of a page: its elements, whatever their text is."""
    return [(token.type, token.tag, token.attrGet("href") or "") for token in tokens if token.type != "text"]


def read(text: str) -> tuple[list[tuple[str, str, str]], str]:
    """A card's elements and its text, as a reader of CommonMark with tables and strikethrough sees them."""
    blocks = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    inside = [token for block in blocks for token in block.children or ()]
    return shape(blocks) + shape(inside), "".join(token.content for token in inside if token.type == "text")


def written(text: str) -> Manifest:
    """A detector.json with a text wherever anybody may write one."""
    graphs = Graph(text.replace("/", "").replace("\\", "") or "x", SHA), Graph("head.onnx", SHA)
    artifact = Artifact(text, "fp16", *graphs, {text: text}, accuracy=replace(FAILED, source=text), unscored=text)
    return replace(
        MANIFEST,
        name=text,
        detector=text,
        notice=text,
        threshold=Threshold(0.25, text),
        calibration=Platt(1.0, 0.0, text),
        artifacts=(artifact, replace(artifact, accuracy=None)),
        provenance={
            "checkpoint": text,
            "checkpoint_sha256": text,
            "tower": text,
            "tower_sha256": {text: [text]},
            "licences": {"code": text, "weights": text},
            "published": {"repo": text},
        },
    )


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_others_wrote_is_text(attack: str) -> None:
    plain, hostile = ModelCard(card.content(written("plain"))), ModelCard(card.content(written(attack)))
    expected = {**plain.data.to_dict(), "license": "other"}
    expected["tags"] = [visible(attack) if tag == "plain" else tag for tag in expected["tags"]]
    assert hostile.data.to_dict() == expected
    (elements, text), (wanted, _) = read(hostile.text), read(plain.text)
    assert elements == wanted
    assert text.count(visible(attack)) >= 10


def test_the_card_of_the_demo_detector() -> None:
    found = ModelCard((DEMO / README).read_text(encoding="utf-8"))
    assert found.data.to_dict() == {
        "license": "apache-2.0",
        "library_name": "spai-toolkit",
        "pipeline_tag": "image-classification",
        "tags": ["ai-generated-image-detection", "image-forensics", "spai", "onnx"],
    }
    fields = json.loads((DEMO / DETECTOR).read_bytes())
    _, text = read(found.text)
    for said in (
        fields["name"],
        fields["notice"],
        f"{fields['threshold']['value']}",
        fields["threshold"]["source"],
        fields["provenance"]["checkpoint_sha256"],
        fields["encoder"]["sha256"],
        fields["head"]["sha256"],
        "evidence, not a verdict",
        "does not say which parts",
    ):
        assert said in text


def test_the_card_that_ships_is_that_of_its_detector() -> None:
    """`make demo-detector` writes it; this says that nobody has changed one of the two since."""
    assert (DEMO / README).read_text(encoding="utf-8") == card.content(Manifest.load(DEMO))


@pytest.mark.parametrize(
    ("weights", "found"), [("MIT", "mit"), ("Apache-2.0", "apache-2.0"), ("CC BY-NC 4.0", "other"), (None, None)]
)
def test_licence_and_repository_are_named_where_they_are_known(weights: str | None, found: str | None) -> None:
    licences = {"code": "MIT", **({"weights": weights} if weights else {})}
    manifest = replace(MANIFEST, provenance={"licences": licences, "published": {"repo": "owner/name"}})
    shown = ModelCard(card.content(manifest))
    assert (shown.data.license, shown.data.base_model) == (found, "owner/name")
    assert (weights or "ask whoever trained them") in read(shown.text)[1]


@pytest.mark.parametrize("strange", [{"licences": 7, "published": []}, {"licences": {"weights": [1]}}, {"tower": None}])
def test_a_provenance_of_another_shape_is_no_error(strange: dict[str, Any]) -> None:
    assert MANIFEST.name in card.content(replace(MANIFEST, provenance=strange))


def test_artifacts_say_what_the_accuracy_check_found() -> None:
    (graph,) = MANIFEST.artifacts
    plan = replace(graph, kind="tensorrt-rtx", target={"capabilities": "8.9"}, unscored="not scored on a GPU yet")
    shown = ModelCard(card.content(replace(MANIFEST, artifacts=(graph, replace(graph, accuracy=FAILED), plan))))
    text = read(shown.text)[1]
    assert "NOT PASSED, the limit is 0.01: |Δscore| from fp32: at most 2.5e-01" in text
    assert "tensorrt-rtx, capabilities 8.9" in text
    assert plan.unscored in text
    assert shown.data.tags[-2:] == ["onnx", "tensorrt"]


@pytest.mark.parametrize(
    ("views", "said"),
    [
        (MANIFEST.views, "every tile of 32×32 pixels"),
        (CentreCrop(224), "one crop of 224×224 pixels from the middle"),
        (TenCrop(96), "ten crops of 96×96 pixels"),
        (WholeImage(), "the whole image"),
    ],
)
def test_every_view_policy_has_words(views: Any, said: str) -> None:
    assert said in card.content(replace(MANIFEST, views=views, attention=False))
    assert "attention" not in card.content(replace(MANIFEST, views=views, attention=False))


def exported_again(directory: Path, threshold: float) -> None:
    """What every export ends with."""
    with writing(directory) as folder:
        describe(replace(Manifest.load(directory), threshold=Threshold(threshold, "a wish")), folder, directory)


def test_an_export_writes_it_and_the_next_one_again(tiny_detector: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny_detector, tmp_path / "m"))
    before = (directory / README).read_text(encoding="utf-8")
    assert before == card.content(Manifest.load(tiny_detector))
    exported_again(directory, 0.125)
    after = (directory / README).read_text(encoding="utf-8")
    assert after == card.content(Manifest.load(directory)) != before
    assert "| threshold | 0.125 |" in after


def link(path: Path) -> None:
    (path.parent / "elsewhere.md").write_text(card.MARK)
    path.symlink_to("elsewhere.md")


OWN: dict[str, Callable[[Path], object]] = {
    "a text": lambda path: path.write_text("# Mine\n"),
    "an empty file": lambda path: path.write_text(""),
    "a link": link,
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
}


@pytest.mark.parametrize("kind", OWN)
def test_the_users_own_is_left_alone(kind: str, tiny_detector: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny_detector, tmp_path / "m"))
    (directory / README).unlink()
    OWN[kind](directory / README)
    before = (directory / README).lstat()
    Calibrated(None, Threshold(0.125, "a wish")).write(directory)
    assert Manifest.load(directory).threshold.value == 0.125
    assert (directory / README).lstat()[:9] == before[:9]
    assert card.is_users(directory)


def test_an_export_leaves_it_and_says_so(tiny_detector: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny_detector, tmp_path / "m"))
    (directory / README).write_text("# Mine\n")
    exported_again(directory, 0.125)
    assert (directory / README).read_text() == "# Mine\n"
    reports = [ExportReport(directory, Manifest.load(directory), (), own_card=own) for own in (True, False)]
    assert [f"{README} is your own" in report.sentences[-1] for report in reports] == [True, False]
    assert [directory / README in report.files for report in reports] == [False, True]


def test_a_calibration_changes_it(tiny_detector: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny_detector, tmp_path / "m"))
    Calibrated(Platt(2.0, 1.0, "Platt scaling on 7 images"), Threshold(0.125, "a wish")).write(directory)
    text = (directory / README).read_text(encoding="utf-8")
    assert text == card.content(Manifest.load(directory))
    assert "Platt scaling on 7 images" in text
    assert sorted(path.name for path in directory.iterdir()) == sorted(path.name for path in tiny_detector.iterdir())

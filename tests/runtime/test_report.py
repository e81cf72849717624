"""The report: what its page says of rows, that text of others stays text, and that its size is bounded."""

import base64
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from spai_runtime.errors import ImageError, OutputError, SourceError
from spai_runtime.files.stamps import Stamp
from spai_runtime.report import report as report_module
from spai_runtime.report.card import Card, Fused
from spai_runtime.report.entry import Entry
from spai_runtime.report.heat import DENSEST, Heat
from spai_runtime.report.page import _TURNS, _score
from spai_runtime.report.report import Report
from spai_runtime.report.roles import Roles
from spai_runtime.report.tally import BINS, Histogram
from spai_runtime.report.thumbnail import Detail, Thumbnail
from spai_runtime.results import Score
from spai_runtime.views import Tiles
from tests.support.images import Write, pixels
from tests.support.pages import ATTACKS, Page

COLUMNS = ["path", "score", "logit", "label", "width", "height", "views", "error"]
TWO = ["path", "a_score", "a_logit", "a_label", "b_score", "b_logit", "b_label", "fusion_score", "fusion_label"]
TWO += ["width", "height", "error"]
CARD = Card("mine", "spai", threshold=0.9, threshold_source="calibrated on 400 images", attention=True)

Row = Mapping[str, Any]


def row(path: object, score: float | None = 0.95, error: str = "", **more: object) -> Row:
    label = "" if score is None else "ai" if score > 0.9 else "real"
    cells = (str(path), score, score, label, 300, 200, 4, error)
    return {**more, **dict(zip(COLUMNS, cells, strict=True))}


def written(path: Path, rows: Sequence[Row], *cards: Card, **options: Any) -> list[Page]:
    """A report of rows, whose images need not be there."""
    names = list(rows[0])
    with Report(path, names, cards or (CARD,), total=len(rows), **options) as report:
        for one in rows:
            report.add(one, Path(str(one["path"])[:200].replace("\x00", "")))
        return [Page(page) for page in report.finish()]


def image_of(address: str) -> Image.Image:
    kind, _, content = address.partition(";base64,")
    assert kind in ("data:image/webp", "data:image/png")
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    image.load()
    return image


def test_a_page_says_what_the_rows_say(photo: Write, tmp_path: Path) -> None:
    first, second = photo("a.png", 200, 300), photo("b.png", 200, 300, seed=1)
    rows = [row(first, 0.97), row(second, 0.25), row("gone.png", None, error="No such file or directory")]
    (page,) = written(tmp_path / "report.html", rows, inputs=["photos/"])
    assert "3 images scored by mine" in page.text
    for said in ("1 ai", "1 real", "1 error", "0.9700", "0.2500", "a.png", "No such file", "calibrated on 400 images"):
        assert said in page.text
    assert "threshold 0.9000" in page.text
    assert "evidence, not a verdict" in page.text
    assert "does not locate edits" in page.text
    assert page.values("article", "id") == ["image-1", "image-2", "image-3"]
    assert page.values("article", "data-label") == ["ai", "real", "error"]
    shown = [image_of(address) for address in page.values("img", "src")]
    assert [image.size for image in shown] == [(300, 200)] * 2
    for image, path in zip(shown, (first, second), strict=True):
        difference = np.asarray(image, np.int16) - np.asarray(Image.open(path), np.int16)
        assert np.abs(difference).mean() < 32, "noise, which WebP blurs"


def test_a_page_asks_for_nothing_and_runs_nothing_but_its_own(photo: Write, tmp_path: Path) -> None:
    (page,) = written(tmp_path / "report.html", [row(photo("a.png", 40, 50))])
    (policy,) = [value for value in page.values("meta", "content") if "default-src" in value]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";") if part.strip())
    assert directives["default-src"] == "'none'"
    assert directives["img-src"] == "data:"
    assert directives["base-uri"] == directives["form-action"] == "'none'"
    for kind in ("style", "script"):
        text = "".join(page.parts[kind])
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert directives[f"{kind}-src"] == f"'sha256-{digest}'", "and no 'unsafe-inline'"
    assert not [name for _, names in page.elements for name in names if name.startswith("on") or name == "style"]
    addresses = [value for _, name, value in page.attributes if name in ("href", "src", "action", "srcset", "data")]
    assert all(re.match(r"data:image/|#image-\d+$", address) for address in addresses)
    assert not re.findall(r"https?://", page.source), "not even a name space"


@pytest.mark.parametrize("attack", ATTACKS)
def test_text_of_others_stays_text(attack: str, tmp_path: Path) -> None:
    """Wherever it can stand, the page has the elements that a harmless text gives."""

    def page_of(text: str) -> Page:
        card = Card(*[text] * 7, 0.5, text, "ai", *[text] * 4, attention=True)
        rows = [row(text, None, text, **{text: text}), row(f"folder/{text}", 0.9, "", **{text: text})]
        fused = Fused(text, 0.5, text)
        (page,) = written(tmp_path / f"{len(text)}.html", rows, card, inputs=[text], fused=fused)
        return page

    harmless, hostile = page_of("harm/less" if "/" in attack else "harmless"), page_of(attack)
    assert hostile.elements == harmless.elements
    assert [hostile.parts[kind] for kind in ("style", "script")] == [
        harmless.parts[kind] for kind in ("style", "script")
    ]
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", hostile.source)
    assert len(hostile.source) < len(harmless.source) + 60 * 1_200, "what is long is cut"


def test_several_detectors_have_a_column_each(tmp_path: Path) -> None:
    rows = [
        dict(zip(TWO, ("x.png", 0.95, 3.0, "ai", 0.1, -2.2, "real", 0.955, "ai", 300, 200, ""), strict=True)),
        dict(zip(TWO, ("y.png", 0.2, -1.4, "real", 0.1, -2.2, "real", 0.28, "real", 300, 200, ""), strict=True)),
        dict(zip(TWO, ("z.png", None, None, "", 0.1, -2.2, "real", None, "", 300, 200, "a: too large"), strict=True)),
    ]
    cards = Card("a", threshold=0.9), Card("b", threshold=0.5, notice="b is a demo")
    (page,) = written(tmp_path / "report.html", rows, *cards, fused=Fused("soft_or", 0.5, "the default"))
    assert page.values("article", "data-label") == ["ai", "real", "error"]
    assert page.values("article", "data-score") == ["0.955", "0.28", ""]
    assert page.values("article", "data-score-0") == ["0.95", "0.2", ""]
    assert [("article", "data-disagree") in [(tag, name) for name in names] for tag, names in page.elements].count(
        True
    ) == 1
    assert "1 on which detectors disagree" in page.text
    assert "b is a demo" in page.text
    assert "soft_or" in page.text


def test_rows_that_spai_run_has_not_written_are_refused() -> None:
    for names in (["image", "score"], ["path", "score"], ["path", "a_score", "a_label"], ["path", "width"]):
        with pytest.raises(SourceError, match="not rows that spai-run has written"):
            Roles.of(names)
    roles = Roles.of(COLUMNS)
    for text in ("high", "nan", "inf", "0.5 <b>"):
        with pytest.raises(SourceError, match="is no number"):
            Entry.of(1, {**row("a.png"), "score": text}, roles)


def test_a_large_run_has_several_pages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("spai_runtime.report.files.PAGE_IMAGES", 3)
    monkeypatch.setattr(report_module, "PAGE_IMAGES", 3)
    pages = written(tmp_path / "my report.html", [row(f"{index}.png", index / 10) for index in range(7)])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "my report-2.html",
        "my report-3.html",
        "my report.html",
    ]
    assert [page.values("article", "id") for page in pages] == [
        ["image-1", "image-2", "image-3"],
        ["image-4", "image-5", "image-6"],
        ["image-7"],
    ]
    for page in pages:
        assert "7 images" in page.text, "counts are of the whole run"
    assert [value for value in pages[1].values("a", "href") if "html" in value] == [
        "my%20report.html",
        "my%20report-3.html",
    ]


@pytest.mark.parametrize("images", [1, 100, 101, 1_000, 1_001, 10**6])
def test_no_thumbnail_is_larger_than_a_page_has_room_for(images: int, tmp_path: Path) -> None:
    """Noise is what compresses worst."""
    detail = Detail.of(images)
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    thumbnail = Thumbnail.of(tmp_path / "noise.png", detail)
    assert len(thumbnail.webp) <= detail.nbytes
    assert min(images, 10_000) * detail.nbytes * 4 / 3 <= 54e6
    assert max(Image.open(io.BytesIO(thumbnail.webp)).size) <= detail.side


def test_a_thumbnail_that_would_never_fit_gets_smaller(tmp_path: Path) -> None:
    Image.fromarray(pixels(200, 200)).save(tmp_path / "a.png")
    thumbnail = Thumbnail.of(tmp_path / "a.png", Detail(160, 120))
    assert len(thumbnail.webp) <= 120
    assert max(Image.open(io.BytesIO(thumbnail.webp)).size) < 160


def test_a_file_that_changed_is_not_shown(photo: Write) -> None:
    path = photo("a.png", 40, 50)
    stamp = Stamp.of(path)
    assert Thumbnail.of(path, Detail.of(1), scored=stamp)
    photo("a.png", 41, 50)
    with pytest.raises(ImageError, match="has changed since it was scored"):
        Thumbnail.of(path, Detail.of(1), scored=stamp)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_exif_says(orientation: int, tmp_path: Path) -> None:
    """Against Pillow's own: where SVG's matrix takes a stored pixel is where `exif_transpose` puts it."""
    stored = Image.fromarray(pixels(6, 10))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    smooth = Image.fromarray(np.linspace(0, 255, 64 * 96 * 3).reshape(64, 96, 3).astype(np.uint8))
    smooth.save(tmp_path / "smooth.png", exif=exif)
    thumbnail = Thumbnail.of(tmp_path / "smooth.png", Detail.of(1))
    assert (thumbnail.orientation, thumbnail.turned) == (orientation, expected.shape[0] > expected.shape[1])
    with Image.open(tmp_path / "smooth.png") as opened, Image.open(io.BytesIO(thumbnail.webp)) as shown:
        right = np.asarray(ImageOps.exif_transpose(opened), np.int16)
        assert np.abs(np.asarray(shown, np.int16) - right).mean() < 8
    matrix = [float(part) for part in _TURNS[orientation].format(w=10, h=6).split()]
    a, b, c, d, e, f = matrix
    turned = np.zeros_like(expected)
    for y in range(6):
        for x in range(10):
            across, down = a * (x + 0.5) + c * (y + 0.5) + e, b * (x + 0.5) + d * (y + 0.5) + f
            turned[int(down), int(across)] = stored.getpixel((x, y))
    assert np.array_equal(turned, expected)


def test_a_heat_map_lies_over_the_tiles() -> None:
    attention = np.array([0.1, 0.2, 0.3, 0.4, 0.0, 0.0], np.float32)
    layout = Tiles(size=50, stride=50, minimum=1).layout(120, 170)
    heat = Heat.of(Score(0.9, 2.0, "ai", attention, layout, 2.0), 170, 120)
    assert heat is not None
    assert (heat.left, heat.top, heat.width, heat.height) == (0, 0, 150, 100)
    pixels = np.asarray(Image.open(io.BytesIO(heat.png)))
    assert pixels.shape == (2, 3, 4)
    relative = attention.reshape(2, 3) * 6
    assert np.abs(pixels[..., 3] - DENSEST * relative / (1 + relative)).max() <= 0.51
    crops = Tiles(size=50, stride=50, minimum=100).layout(120, 170)
    assert Heat.of(Score(0.9, 2.0, "ai", np.full(5, 0.2, np.float32), crops, 2.0), 170, 120) is None
    assert Heat.of(Score(0.9, 2.0, "ai", None, layout, 2.0), 170, 120) is None


def test_histograms_count_every_score() -> None:
    scores = [*np.random.default_rng(0).random(500).tolist(), 0.0, 1.0]
    histogram = Histogram("mine", 0.5)
    roles = Roles.of(COLUMNS)
    for score in scores:
        histogram.add(roles.together(row("a.png", score)))
    expected, _ = np.histogram(scores, BINS, (0, 1))
    assert histogram.counts == expected.tolist()


@pytest.mark.parametrize(
    ("score", "text"),
    [(None, "—"), (0.0, "0.0000"), (1e-9, "< 0.0001"), (0.12345, "0.1235"), (1 - 1e-9, "> 0.9999"), (1.0, "1.0000")],
)
def test_a_score_never_looks_surer_than_it_is(score: float | None, text: str) -> None:
    assert _score(score) == text


def test_a_run_that_ends_early_leaves_nothing(photo: Write, tmp_path: Path) -> None:
    path = photo("images/a.png", 40, 50)

    def interrupted() -> None:
        with Report(tmp_path / "out" / "report.html", COLUMNS, [CARD], total=1) as report:
            report.add(row(path), path)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        Report(tmp_path / "file" / "report.html", COLUMNS, [CARD], total=1)


def test_orders_of_rows_and_pictures_agree(tmp_path: Path) -> None:
    """More than are waited for at a time; each picture is of one colour, which its name says."""
    paths = []
    for index in range(40):
        path = tmp_path / f"{index}.png"
        Image.new("RGB", (20, 10), (6 * index, 0, 0)).save(path)
        paths.append(path)
    (page,) = written(tmp_path / "report.html", [row(path) for path in paths])
    reds = [np.asarray(image_of(address))[..., 0].mean() for address in page.values("img", "src")]
    assert np.abs(np.array(reds) - 6 * np.arange(40)).max() < 5

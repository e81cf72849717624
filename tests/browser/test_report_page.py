"""The report in a browser: sorting, filtering, heat maps, links, keys, colours, print, and text of others."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spai_runtime.report.card import Card, Fused
from spai_runtime.report.report import Report
from spai_runtime.results import Score
from spai_runtime.text import excerpt
from spai_runtime.views import Tiles
from tests.support.images import pixels
from tests.support.pages import ATTACKS

pytestmark = pytest.mark.browser

COLUMNS = ["path", "a_score", "a_logit", "a_label", "b_score", "b_logit", "b_label", "fusion_score", "fusion_label"]
COLUMNS = ["generator", *COLUMNS, "width", "height", "error"]
SIZE = 170, 120  # width and height, of which tiles of 50 cover 150 and 100
SCORES = [0.95, 0.2, None, 0.7, 0.99, 0.02, 0.51]
NAMES = ["holiday/img_10.png", "holiday/img_9.png", "broken.png", "portrait.png", "x.png", "y.png", "z.png"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven images of two detectors; the first one says where it looked."""
    folder = tmp_path_factory.mktemp("report")
    layout = Tiles(size=50, stride=50, minimum=1).layout(SIZE[1], SIZE[0])
    attention = np.array([0.5, 0.1, 0.1, 0.1, 0.1, 0.1], np.float32)
    cards = Card("a", threshold=0.9, attention=True), Card("b", threshold=0.5)
    with Report(folder / "report.html", COLUMNS, cards, total=7, fused=Fused("mean_logit", 0.6, "given")) as report:
        for index, (name, score) in enumerate(zip(NAMES, SCORES, strict=True)):
            path = folder / f"{index}.png"
            Image.fromarray(pixels(SIZE[1], SIZE[0], index)).save(path)
            said = [None, None, ""] if score is None else [score, 1.0, "ai" if score > 0.9 else "real"]
            fused = [None, ""] if score is None else [score, "ai" if score > 0.6 else "real"]
            error = "cannot be decoded" if score is None else ""
            cells = ["flux" if index % 2 else "sora", name, *said, *said[:2], said[2] and "real", *fused, *SIZE, error]
            one = None if score is None else Score(score, 1.0, "ai", attention, layout, 1.0)
            report.add(dict(zip(COLUMNS, cells, strict=True)), path, scores=[one, None])
        report.finish()
    return folder / "report.html"


def eventually(page: Any, holds: Callable[[], bool]) -> None:
    """Waits until it holds. Playwright's `wait_for_function` evaluates text, which the policy of the page forbids."""
    for _ in range(100):
        if holds():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it did not happen in five seconds")


def names(page: Any) -> Sequence[str]:
    """Of the images that are to be seen, in their order."""
    return page.eval_on_selector_all(
        "article", "all => all.filter(one => one.offsetParent).map(one => one.dataset.name)"
    )


def by(key: Callable[[float | None], float]) -> Sequence[str]:
    """Names in the order of their scores; without a score, at the end."""
    order = sorted(range(7), key=lambda index: (SCORES[index] is None, key(SCORES[index] or math.inf), index))
    return [NAMES[index] for index in order]


def test_images_are_sorted(opened: Any, report: Path) -> None:
    page = opened.go(report)
    assert names(page) == NAMES
    page.select_option("#sort", label="score, highest first")
    assert names(page) == by(lambda score: -score)
    page.select_option("#sort", label="score of a, highest first")
    assert names(page) == by(lambda score: -score)
    page.select_option("#sort", label="score, lowest first")
    assert names(page) == by(lambda score: score)
    page.select_option("#sort", label="name")
    shown = names(page)
    assert shown.index("holiday/img_9.png") < shown.index("holiday/img_10.png"), "numbers count as numbers"
    page.select_option("#sort", label="order of the run")
    assert names(page) == NAMES


def test_images_are_filtered(opened: Any, report: Path) -> None:
    page = opened.go(report)
    page.get_by_label("error", exact=True).check()
    assert names(page) == ["broken.png"]
    page.get_by_label("detectors disagree").check()
    assert names(page) == [name for name, score in zip(NAMES, SCORES, strict=True) if score and score > 0.9]
    page.get_by_label("all", exact=True).check()
    page.fill("#search", "IMG holiday")
    assert names(page) == NAMES[:2]
    assert page.text_content("#shown") == "2 of 7 shown"
    page.fill("#search", "flux")
    assert names(page) == NAMES[1::2], "a cell of the user's CSV"
    page.fill("#search", "nothing like it")
    assert names(page) == []


def test_a_heat_map_lies_over_its_tiles(opened: Any, report: Path) -> None:
    page = opened.go(report)
    heat = page.locator("#image-1 image.heat-0")
    assert not heat.is_visible()
    assert not page.locator("#about-heat").is_visible()
    page.select_option("#heat", label="a")
    assert heat.is_visible()
    assert "does not locate edits" in page.text_content("#about-heat")
    tiles, box = heat.bounding_box(), page.locator("#image-1 .picture").bounding_box()
    scale = min(box["width"] / SIZE[0], box["height"] / SIZE[1])  # the picture lies in the middle of its box
    left, top = box["x"] + (box["width"] - scale * SIZE[0]) / 2, box["y"] + (box["height"] - scale * SIZE[1]) / 2
    assert (tiles["x"], tiles["y"]) == pytest.approx((left, top), abs=1)
    assert (tiles["width"], tiles["height"]) == pytest.approx((scale * 150, scale * 100), abs=1)
    page.locator("h1").click()
    page.keyboard.press("h")
    assert not heat.is_visible()
    page.keyboard.press("h")
    assert heat.is_visible()


def test_a_link_opens_an_image(opened: Any, report: Path) -> None:
    page = opened.go(report, "#image-4")
    detail = page.locator("#detail")
    assert detail.is_visible()
    assert page.text_content("#detail-name") == "portrait.png"
    assert "sora" not in detail.inner_text()
    assert "flux" in detail.inner_text()
    assert page.get_attribute("#link", "href") == "#image-4"
    page.keyboard.press("ArrowRight")
    eventually(page, lambda: page.text_content("#detail-name") == "x.png")
    assert page.url.endswith("#image-5")
    page.keyboard.press("Escape")
    eventually(page, lambda: "#" not in page.url)
    assert not detail.is_visible()
    page.locator("#image-3 .shot").click()
    eventually(page, detail.is_visible)
    assert "cannot be decoded" in detail.inner_text()
    page.locator("#close").click()
    assert not detail.is_visible()


def test_the_next_image_is_that_of_the_order(opened: Any, report: Path) -> None:
    page = opened.go(report)
    page.select_option("#sort", label="score, highest first")
    page.get_by_label("ai", exact=True).check()
    expected = [name for name in by(lambda score: -score) if SCORES[NAMES.index(name)] not in (0.2, 0.02, 0.51, None)]
    page.locator(f"#image-{NAMES.index(expected[0]) + 1} .shot").click()
    eventually(page, page.locator("#detail").is_visible)
    seen = [page.text_content("#detail-name")]
    while page.locator("#after").is_enabled():
        page.locator("#after").click()
        eventually(page, lambda: page.text_content("#detail-name") != seen[-1])
        seen.append(page.text_content("#detail-name"))
    assert seen == expected
    assert page.text_content("#place") == f"{len(expected)} of {len(expected)}"


def test_keys_go_from_image_to_image(opened: Any, report: Path) -> None:
    page = opened.go(report)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.closest('article').id") == "image-2"
    page.keyboard.press("Enter")
    eventually(page, lambda: page.text_content("#detail-name") == NAMES[1])
    page.keyboard.press("Escape")
    eventually(page, lambda: page.evaluate("document.activeElement.closest('article')?.id") == "image-2")
    page.keyboard.press("/")
    page.keyboard.type("hh")
    assert page.input_value("#search") == "hh"
    assert page.input_value("#heat") == "", "a letter of the search is no key"


def test_text_of_others_is_shown_as_it_is(opened: Any, tmp_path: Path) -> None:
    columns = ["path", "score", "logit", "label", "width", "height", "views", "error"]
    text = ATTACKS[3]
    card = Card(text, text, text, text, text, text, text, 0.5, text, notice=text, attention=True)
    with Report(tmp_path / "report.html", columns, [card], total=len(ATTACKS), inputs=ATTACKS) as report:
        for attack in ATTACKS:
            cells = attack, 0.9, 1.0, "ai", 10, 10, 1, attack
            report.add(dict(zip(columns, cells, strict=True)), tmp_path / "none.png")
        report.finish()
    page = opened.go(tmp_path / "report.html")
    assert names(page) == [excerpt(attack) for attack in ATTACKS]
    for index in range(len(ATTACKS)):
        page.evaluate("id => { location.hash = id }", f"image-{index + 1}")
        expected = excerpt(ATTACKS[index])
        eventually(page, lambda expected=expected: page.text_content("#detail-name") == expected)
    assert text in page.text_content("h1")
    assert page.locator("body > *").evaluate_all("all => all.map(one => one.localName)") == [
        *("header", "noscript", "form", "p", "main", "dialog", "footer", "script")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(browser: Any, report: Path, scheme: str) -> None:
    """WCAG 2.2 asks for a contrast of 4.5."""
    page = browser.new_page(color_scheme=scheme)
    page.goto(report.as_uri())
    background = luminance(page, "body", "backgroundColor")
    assert (background > 0.5) == (scheme == "light")
    for selector in (
        "h1",
        "header .quiet",
        "article.real .badge",
        "article.flagged .badge",
        "article p.error",
        ".size",
    ):
        panel = luminance(
            page, "article" if "article" in selector or selector == ".size" else "body", "backgroundColor"
        )
        text = luminance(page, selector, "color")
        low, high = sorted((text, panel))
        assert (high + 0.05) / (low + 0.05) >= 4.5, selector
    page.close()


def luminance(page: Any, selector: str, name: str) -> float:
    """Relative, in [0, 1], as WCAG defines it."""
    colour = page.eval_on_selector(selector, f"one => getComputedStyle(one).{name}")
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_a_printed_page_has_pictures_and_no_buttons(opened: Any, report: Path) -> None:
    page = opened.go(report)
    page.emulate_media(media="print")
    assert not page.locator("#controls").is_visible()
    assert names(page) == NAMES
    assert page.eval_on_selector("article", "one => getComputedStyle(one).contentVisibility") == "visible"
    assert len(page.pdf()) > 10_000


def test_without_scripts_all_images_are_there(browser: Any, report: Path) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(report.as_uri())
    assert page.locator("article").count() == 7
    assert not page.locator("#controls").is_visible()
    assert "Scripts are switched off" in page.text_content("noscript")
    page.close()


def test_a_narrow_screen_needs_no_scrolling_sideways(browser: Any, report: Path) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 700})
    page.goto(report.as_uri())
    for look in ("pictures", "list"):
        page.select_option("#look", look)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()


def test_a_list_is_as_long_as_the_pictures(opened: Any, report: Path) -> None:
    page = opened.go(report)
    page.select_option("#look", "list")
    assert names(page) == NAMES
    boxes = [page.locator(f"#image-{number}").bounding_box() for number in (1, 2)]
    assert boxes[0]["x"] == boxes[1]["x"], "one below the other"

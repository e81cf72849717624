"""report.html of `evaluate` in a browser: its columns are sorted, and it asks for nothing."""

from pathlib import Path
from typing import Any

import pytest

from spai_train.cli import main
from tests.support.images import pixels

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, tiny_detector: Path) -> Path:
    from PIL import Image  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("evaluated")
    lines = ["image,class,source"]
    for index in range(9):
        Image.fromarray(pixels(60 + 20 * index, 90, index)).save(folder / f"{index}.png")
        lines.append(f"{index}.png,{int(index > 2)},{('camera', 'flux', 'sora')[index // 3]}")
    (folder / "images.csv").write_text("\n".join(lines) + "\n")
    options = "--engine", str(tiny_detector), "--resamples", "20", "--output", str(folder / "out")
    assert main(["evaluate", str(folder / "images.csv"), *options]) == 0
    return folder / "out" / "report.html"


def cells(page: Any, column: int) -> list[str]:
    script = "(rows, column) => rows.map(row => row.cells[column].dataset.value ?? row.cells[column].textContent)"
    return page.eval_on_selector_all("table.sortable >> nth=0 >> tbody tr", script, column)


def test_columns_are_sorted(opened: Any, report: Path) -> None:
    page = opened.go(report)
    heads = page.locator("table.sortable").first.locator("thead th")
    names = heads.all_inner_texts()
    auc = names.index("AUC")
    heads.nth(auc).get_by_role("button").click()
    down = cells(page, auc)
    assert down == [*sorted(filter(None, down), key=float, reverse=True), ""], "the real source has none"
    heads.nth(auc).get_by_role("button").click()
    assert cells(page, auc) == [*sorted(filter(None, down), key=float), ""]
    assert heads.nth(auc).get_attribute("aria-sort") == "ascending"
    heads.nth(0).get_by_role("button").click()
    assert cells(page, 0) == ["sora", "flux", "camera"]


def test_plots_are_drawn(opened: Any, report: Path) -> None:
    page = opened.go(report)
    sizes = page.eval_on_selector_all(".plot img", "all => all.map(one => one.naturalWidth)")
    assert len(sizes) == 2
    assert min(sizes) > 400


def test_a_narrow_screen_scrolls_tables_alone(browser: Any, report: Path) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 700})
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()

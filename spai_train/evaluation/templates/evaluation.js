"use strict";
(() => {
  const names = new Intl.Collator(undefined, { numeric: true });
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent.trim() : cell.dataset.value === "" ? NaN : Number(cell.dataset.value);
  };

  // Rows without a figure stay at the end, whichever way the others are sorted.
  function compare(x, y, down) {
    if (typeof x === "string") return (down ? -1 : 1) * names.compare(x, y);
    return Number.isNaN(x) || Number.isNaN(y) ? Number.isNaN(x) - Number.isNaN(y) : down ? y - x : x - y;
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    for (const head of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") !== "descending";
        for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows], column = head.cellIndex;
        rows.sort((a, b) => compare(value(a, column), value(b, column), down));
        table.tBodies[0].append(...rows);
      });
    }
  }
})();

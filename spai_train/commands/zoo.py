"""spai-train zoo"""

import csv
import io
import json
import shutil
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from spai_runtime import zoo as exports
from spai_runtime.cli.commands import VerboseOption, show
from spai_runtime.cli.options import Form
from spai_train.published import Entry
from spai_train.zoo import ZOO, find

EPILOG = (
    "Exit code: 0 shown; 2 there is none of that name. Columns: name, detector, file, size, sha256, source, repo, "
    "revision, tower, tower_source, code_licence, weights_licence, non_commercial, views, reported, command. What is "
    "not known is empty."
)


def run(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Checkpoint to tell all about. Without it, a table of all.")
    ] = None,
    form: Annotated[
        Form,
        typer.Option("--format", help="auto is a table on a terminal and CSV in a pipe; for one NAME, its lines."),
    ] = Form.AUTO,
    verbose: VerboseOption = False,  # noqa: ARG001  see execute
) -> int:
    """List the published checkpoints: where they lie, their licences, what they look at, what is reported of them."""
    entries = list(ZOO.values()) if name is None else [find(name)]
    if form is Form.AUTO and name is None:
        form = Form.TABLE if sys.stdout.isatty() else Form.CSV
    if form is Form.CSV:
        show(*_csv(entries))
    elif form is Form.JSONL:
        show(*(json.dumps(cells(entry), ensure_ascii=False) for entry in entries))
    elif name is None:
        show(*_table(entries))
    else:
        show(*_described(entries[0]))
    return 0


def cells(entry: Entry) -> dict[str, object]:
    """What is known of a published checkpoint, by column."""
    file, tower = entry.file, entry.tower
    return {
        "name": entry.name,
        "detector": entry.detector,
        "file": file.name,
        "size": file.size,
        "sha256": file.sha256,
        "source": file.source,
        "repo": file.repo,
        "revision": file.revision if file.repo else "",
        "tower": tower.name if tower else "",
        "tower_source": tower.source if tower else "",
        "code_licence": entry.code_licence,
        "weights_licence": file.licence,
        "non_commercial": entry.non_commercial,
        "views": entry.views,
        "reported": "; ".join(f"{reported.figures} ({reported.source})" for reported in entry.reported),
        "command": _command(entry),
    }


def _command(entry: Entry) -> str:
    accept = " --accept-licence" if entry.non_commercial else ""
    return f"spai-run --detector {entry.name}{accept} INPUT" if entry.on_hub else entry.export_line


def _csv(entries: list[Entry]) -> list[str]:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(cells(entries[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows(cells(entry) for entry in entries)
    return text.getvalue().splitlines()


def _table(entries: list[Entry]) -> list[str]:
    table = Table(box=None, pad_edge=False, header_style="")
    for title in ("name", "bytes", "code, weights", "lies", "views"):
        table.add_column(title, justify="right" if title == "bytes" else "left", no_wrap=title in ("name", "bytes"))
    for entry in entries:
        size = "" if entry.file.size is None else f"{entry.file.size:,}"
        lies = f"{'on the hub' if entry.on_hub else 'elsewhere'}{', needs a tower' if entry.tower else ''}"
        table.add_row(entry.name, size, f"{entry.code_licence}; {entry.file.licence}", lies, entry.views)
    text = io.StringIO()
    Console(file=text, width=max(80, shutil.get_terminal_size((120, 24)).columns), no_color=True).print(table)
    return [line.rstrip() for line in text.getvalue().splitlines()]


def _described(entry: Entry) -> list[str]:
    """Lines with all that is known of a published checkpoint; they also say what is not known."""
    file, folder = entry.file, exports.directory(entry.name)
    lines = [("name", entry.name), ("detector", entry.detector), ("file", file.name), ("lies at", file.source)]
    if file.repo:
        lines.append(("revision", f"{file.revision} of {file.repo}, on the Hugging Face hub"))
    lines.append(("size", "not known" if file.size is None else f"{file.size:,} bytes"))
    lines.append(("sha256", file.sha256 or "not known"))
    if entry.tower:
        lines.append(("tower", f"{entry.tower.described}; {entry.tower.licence}"))
    lines += [("code", entry.code_licence), ("weights", file.licence), ("views", entry.views)]
    lines += [("reported", f"{one.figures} ({one.source})") for one in entry.reported]
    lines += [("note", entry.note)] if entry.note else []
    then = "" if entry.on_hub else f", then `spai-run --engine {entry.name} INPUT`"
    lines.append(("to use it", f"`{_command(entry)}`{then}"))
    if exports.is_complete(folder):
        lines.append(("exported", f"{folder}, until you remove it"))
    return [f"{title:<9}  {text}" for title, text in lines]

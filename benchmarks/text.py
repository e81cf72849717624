"""Names and errors as a result file may hold them."""

import re


def slug(name: str) -> str:
    """Of a device: `NVIDIA H200` → `nvidia-h200`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def first_line(error: BaseException) -> str:
    """Of whatever went wrong: its type and what it says first."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {pathless(said[0])}" if said else type(error).__name__


def pathless(text: str) -> str:
    """Of every absolute path its last part: where files lie is nobody's business."""
    return re.sub(r"(?<![\w:/.])/(?:[^\s/'\":,;]+/)+([^\s/'\":,;]+)", r"\1", text)

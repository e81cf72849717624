"""The notebook of docs/, run from its first cell to its last."""

import base64
import io
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

from spai_runtime import Detector

ROOT = Path(__file__).parents[2]
PATH = ROOT / "docs" / "notebook.ipynb"


@pytest.fixture(scope="module")
def ran() -> list[NotebookNode]:
    """Its outputs."""
    notebook = nbformat.read(PATH, as_version=4)
    done = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": PATH.parent}}
    ).execute()
    return [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]


def test_it_is_kept_without_outputs() -> None:
    notebook = nbformat.read(PATH, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


def test_its_scores_are_the_detectors(ran: list[NotebookNode]) -> None:
    printed = "".join(output.text for output in ran if output.get("name") == "stdout")
    images = [path for path in (ROOT / "examples").iterdir() if path.suffix in (".jpg", ".png")]
    with Detector.load(precision="fp32", device="cpu") as detector:
        for path in images:
            score = detector.score(path)
            assert f"{path.name:20} {score.score:.4f}  {score.label}" in printed
        assert f"threshold {detector.manifest.threshold.value}" in printed


def test_it_draws_and_warns_of_nothing(ran: list[NotebookNode]) -> None:
    assert not [output.text for output in ran if output.get("name") == "stderr"]
    pictures = [base64.b64decode(output.data["image/png"]) for output in ran if output.output_type == "display_data"]
    assert len(pictures) == 2
    for picture in pictures:
        with Image.open(io.BytesIO(picture)) as image:
            assert len(image.convert("RGB").getcolors(image.width * image.height) or []) > 10, "it is empty"

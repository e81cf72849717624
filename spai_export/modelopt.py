"""NVIDIA's ModelOpt, in a process of its own: it patches ONNX Runtime's quantiser, prints, and leaves files about."""

import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spai_runtime.engines.onnx_session import import_runtime
from spai_runtime.errors import UserError
from spai_runtime.install import install

INSTALL = install("quantize")


class QuantisationError(UserError):
    """A graph that could not be quantised or a calibration without images, and why, in one sentence."""


def require_modelopt() -> None:
    """:raises QuantisationError: it is not installed; call this before anything that takes long"""
    if importlib.util.find_spec("modelopt") is None:
        raise QuantisationError(f"ModelOpt is not installed: {INSTALL}")


def run_modelopt(folder: Path, arguments: Mapping[str, object]) -> None:
    """Quantises: a folder's encoder.onnx and views.npy → its quantised.onnx; other files that it writes stay there too.

    :param arguments: arguments of modelopt.onnx.quantization.quantize, beside files and data
    :raises QuantisationError: it has failed; the error has the last line of what it said
    """
    environment = {"TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ran = subprocess.run(
        [sys.executable, "-m", __name__, json.dumps(arguments)],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if ran.returncode or not (folder / "quantised.onnx").is_file():
        raise QuantisationError(_reason(ran))


def _reason(ran: subprocess.CompletedProcess[str]) -> str:
    if ran.returncode < 0:
        name = signal.Signals(-ran.returncode).name
        return f"ModelOpt was ended by {name}: it may want more memory than there is; calibrate on fewer views"
    last = ran.stderr.strip().splitlines()[-1:] or ["it wrote nothing"]
    if last[0].startswith("ModuleNotFoundError"):
        return f"ModelOpt is not whole, {last[0].partition(': ')[2]}: {INSTALL}"
    return f"ModelOpt could not quantise the encoder: {last[0]}"


def _in_this_process(arguments: Mapping[str, Any]) -> None:
    """Quantises in the folder; this runs in the other process."""
    import numpy as np  # noqa: PLC0415

    onnxruntime = import_runtime()

    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    importlib.import_module("modelopt.onnx.quantization").quantize(
        str(Path("encoder.onnx").resolve()),
        calibration_data={"views": np.load("views.npy")},
        calibration_eps=["cuda:0", "cpu"] if cuda else ["cpu"],
        high_precision_dtype="fp32",  # ModelOpt then casts nothing: the graph says what is half and what is not
        output_path=str(Path("quantised.onnx").resolve()),
        log_level="CRITICAL",
        **arguments,
    )


if __name__ == "__main__":
    _in_this_process(json.loads(sys.argv[1]))

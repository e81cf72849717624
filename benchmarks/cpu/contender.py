"""A contender: one back end in one precision, loaded as users load it."""

from dataclasses import dataclass
from pathlib import Path

from spai_runtime.detector import Detector
from spai_runtime.engines import backends
from spai_runtime.manifest import Precision

LABELS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


@dataclass(frozen=True)
class Contender:
    """:param backend: of `--backend`
    :param precision: of `--precision`
    """

    backend: str
    precision: Precision

    @property
    def label(self) -> str:
        """The back end, for people."""
        return LABELS[self.backend]

    @property
    def name(self) -> str:
        """`OpenVINO bf16`"""
        return f"{self.label} {self.precision}"

    @property
    def options(self) -> list[str]:
        """Of `spai-run`, beside `--engine`."""
        return ["--device", "cpu", "--backend", self.backend, "--precision", self.precision]

    def absent(self) -> str:
        """Why this machine cannot have it, or ""."""
        rows = [row for row in backends(self.backend) if row.device == "cpu"]
        able = [row for row in rows if self.precision in ((row.computes,) if row.computes else row.precisions)]
        if any(row.available() for row in able):
            return ""
        return f"{self.label} is not installed, or this processor does not multiply {self.precision}"

    def load(self, directory: Path) -> Detector:
        """:raises UserError: the runtime refuses, and says why"""
        return Detector.load(directory, device="cpu", backend=self.backend, precision=self.precision)


CONTENDERS = (
    Contender("onnxruntime", "fp32"),
    Contender("openvino", "fp32"),
    Contender("openvino", "bf16"),
    Contender("openvino", "int8"),
    Contender("onnxruntime", "int8"),
)
REFERENCE = CONTENDERS[0]  # whose scores the others are compared with

"""Python in a process where some packages cannot be imported."""

import subprocess
import sys

HEAVY = ("torch", "torchvision", "timm", "safetensors", "onnx", "onnxscript", "sklearn", "spai_train", "spai_export")
ENGINES = ("onnxruntime", "tensorrt", "openvino", "cupy")
BLOCK = """
import sys

class Block:
    asked = []

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            self.asked.append(name)
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Block())
"""


def python(code: str, *arguments: object, blocked: tuple[str, ...] = HEAVY) -> str:
    command = [sys.executable, "-c", BLOCK.format(names=blocked) + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout

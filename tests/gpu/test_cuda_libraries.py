"""What ONNX Runtime says while it looks for CUDA's libraries, and what a user is told of one that is missing.

Libraries that a C compiler makes stand in for those of onnxruntime-gpu: the dynamic loader treats them in the same way.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from spai_runtime.engines import cuda_libraries
from spai_runtime.engines.cuda_libraries import check_provider, import_for_cuda, unloadable
from spai_runtime.engines.onnx_session import CPU, CUDA, has_cuda, import_runtime, open_session
from spai_runtime.errors import EngineError
from tests.support.small_graphs import ENCODER, write_encoder

PROVIDER, SHARED = "libonnxruntime_providers_cuda.so", "libonnxruntime_providers_shared.so"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")

linux = pytest.mark.skipif(sys.platform != "linux", reason="the dynamic loader of Linux names what is missing")


@pytest.fixture
def runtime(tmp_path: Path) -> Any:
    """ONNX Runtime as far as where its libraries lie."""
    (tmp_path / "capi").mkdir()
    return SimpleNamespace(__file__=str(tmp_path / "__init__.py"))


def compiled(folder: Path, name: str, source: str, *options: str) -> None:
    if COMPILER is None:
        pytest.skip("no C compiler")
    command = [COMPILER, "-shared", "-fPIC", "-o", name, "-x", "c", "-", "-x", "none", *options]
    subprocess.run(command, cwd=folder, input=source, text=True, check=True)


def write_provider(folder: Path, *needs: str) -> None:
    """Libraries that need one another as those of the wheel do, and others that are gone, and nowhere else either."""
    for need in needs:
        compiled(folder, need, f"int {need.split('.')[0]}(void) {{ return 0; }}", f"-Wl,-soname,{need}")
    compiled(folder, SHARED, "int Provider_GetHost(void) { return 0; }")
    calls = " + ".join(f"{need.split('.')[0]}()" for need in needs) or "0"
    declared = " ".join(f"int {need.split('.')[0]}(void);" for need in needs)
    source = f"int Provider_GetHost(void); {declared} int start(void) {{ return Provider_GetHost() + {calls}; }}"
    compiled(folder, PROVIDER, source, *(f"./{need}" for need in needs))
    for need in needs:
        (folder / need).unlink()


@linux
@pytest.mark.parametrize("needs", [["libgone.so.13"], ["libgone.so.13", "libaway.so.1"]])
def test_the_library_that_is_missing_is_named(runtime: Any, tmp_path: Path, needs: list[str]) -> None:
    write_provider(tmp_path / "capi", *needs)
    reason = unloadable(runtime)
    assert reason is not None
    assert reason.partition(":")[0] == needs[0]
    assert str(tmp_path) not in reason


@linux
def test_nothing_is_missing(runtime: Any, tmp_path: Path) -> None:
    assert unloadable(runtime) is None  # a build without CUDA
    write_provider(tmp_path / "capi")
    assert unloadable(runtime) is None


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        (
            "libcublasLt.so.13: cannot open shared object file",
            r"could not start CUDAExecutionProvider \(libcublasLt.so.13: .*\): pip install '\.\[gpu\]'$",
        ),
        ("libcuda.so.1: cannot open shared object file", r"\(libcuda.so.1: .*\): install the GPU's driver$"),
        (None, r"for .*encoder\.onnx; is the CUDA driver installed\?$"),
    ],
)
def test_a_session_that_went_to_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str | None, message: str
) -> None:
    """ONNX Runtime makes one all the same, and says so nowhere but in its log."""
    monkeypatch.setattr(cuda_libraries, "unloadable", lambda _: reason)
    path = write_encoder(tmp_path / "encoder.onnx")
    with pytest.raises(EngineError, match=message):
        check_provider(path, open_session(path, ENCODER, CPU, {}))


def test_looking_for_libraries_prints_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Rows of results may go to stdout."""
    called, severities = [], list[int]()

    def preload_dlls() -> None:
        called.append(1)
        print("Failed to load libcublasLt.so.13: cannot open shared object file")  # noqa: T201  as ONNX Runtime does

    monkeypatch.setattr(cuda_libraries, "has_cuda", lambda: True)
    monkeypatch.setattr(import_runtime(), "preload_dlls", preload_dlls)
    monkeypatch.setattr(import_runtime(), "set_default_logger_severity", severities.append)
    import_for_cuda()
    print("header")  # noqa: T201
    assert called == [1]
    assert set(severities) == {4}  # fatal: its errors are written, too
    assert capfd.readouterr() == ("header\n", "")


SESSION = """
import sys
import onnxruntime
onnxruntime.set_default_logger_severity(0)
if sys.argv[2:]:
    from spai_runtime.engines.onnx_session import import_runtime
    import_runtime()
settings = onnxruntime.SessionOptions()
settings.log_severity_level = 4
onnxruntime.InferenceSession(sys.argv[1], settings, providers=["CPUExecutionProvider"])
"""


@pytest.mark.parametrize("ours", [False, True])
def test_the_default_logger_is_silent(tmp_path: Path, ours: bool) -> None:
    """A session's own severity does not bind it."""
    path = write_encoder(tmp_path / "encoder.onnx")
    command = [sys.executable, "-c", SESSION, str(path), *(["ours"] if ours else [])]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert (":Default, " in done.stderr) != ours
    assert done.stdout == ""


@pytest.mark.skipif(not has_cuda(), reason="this ONNX Runtime has no CUDA: onnxruntime-gpu is not installed")
def test_the_real_libraries(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With onnxruntime-gpu: a session on CUDA, or a sentence that says what is missing; and not a line besides."""
    runtime = import_for_cuda()
    reason = unloadable(runtime)
    path = write_encoder(tmp_path / "encoder.onnx")
    try:
        check_provider(path, open_session(path, ENCODER, CUDA, {}))
    except EngineError as error:
        assert reason is None or reason in str(error)
    else:
        assert reason is None
    assert capfd.readouterr() == ("", "")

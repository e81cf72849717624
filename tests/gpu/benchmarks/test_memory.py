"""How a GPU's memory is watched while graphs are recorded: by another process, over an NVML that is made up."""

import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
from gpu.memory import Compared, Polled, peaks

NVML = """
#include <stdio.h>
#include <string.h>
struct memory { unsigned long long total, free, used; };
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) { *handle = 0; return strcmp(uuid, "GPU-1") ? 6 : 0; }
int nvmlDeviceGetMemoryInfo(void *handle, struct memory *memory) {
    FILE *file = fopen("USED", "r");
    int read = file ? fscanf(file, "%llu", &memory->used) : 0;
    if (file) fclose(file);
    return read == 1 ? 0 : 999;
}
"""


@pytest.fixture
def used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of bytes that are in use on GPU-1, in the place of NVML's knowledge."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    path, library = tmp_path / "used", tmp_path / "libnvidia-ml.so.1"
    source = NVML.replace("USED", str(path))
    subprocess.run([compiler, "-x", "c", "-", "-shared", "-fPIC", "-o", library], input=source, text=True, check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    write(path, 100)
    return path


def write(path: Path, used: int) -> None:
    """In one step: it is read all the time."""
    draft = path.with_suffix(".part")
    draft.write_text(str(used))
    draft.replace(path)


def test_what_was_given_back_in_between_is_seen(used: Path) -> None:
    with Polled("GPU-1") as peak:
        write(used, 700)
        time.sleep(0.2)
        write(used, 150)
    assert peak.grown == 600


def test_this_process_asks_cuda_nothing_meanwhile(used: Path) -> None:
    """No thread of its own either: whatever it asked could fall into a recording."""
    make, said = peaks("GPU-1", lambda: pytest.fail("CUDA was asked"))
    before = threading.active_count()
    with make() as peak:
        assert threading.active_count() == before
        write(used, 300)
    assert peak.grown == 200
    assert said == "the most in use, from NVML in another process"


def test_an_error_within_is_the_one_that_is_raised(used: Path) -> None:
    with pytest.raises(KeyError), Polled("GPU-1"):
        used.unlink()
        raise KeyError


def test_an_nvml_that_stops_answering_is_an_error(used: Path) -> None:
    with pytest.raises(OSError, match="NVML does not say"), Polled("GPU-1"):
        used.unlink()
        time.sleep(0.2)


@pytest.mark.parametrize("gpu", ["GPU-2", "GPU-1"])
def test_without_nvml_memory_is_compared(used: Path, gpu: str) -> None:
    """A GPU that it does not know, and none that answers."""
    used.unlink()
    bytes_in_use = iter([100, 450])
    make, said = peaks(gpu, lambda: next(bytes_in_use))
    with make() as peak:
        pass
    assert isinstance(peak, Compared)
    assert peak.grown == 350
    assert said == "in use after the warm-up, from CUDA"

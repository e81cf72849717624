"""What a machine that is lent for its GPU need not have."""

from pathlib import Path

from tests.support.lacking import Lacking

ROOT = Path(__file__).parents[3]
TRAINING = ("accelerate", "lmdb", "matplotlib", "optuna", "scikit-learn", "scipy", "sklearn", "tensorboard")
TESTING = ("hypothesis", "_hypothesis_pytestplugin", "_hypothesis_globals", "pytest-benchmark", "pytest-timeout")
ENGINES = ("cupy", "cupy_cuda13x", "tensorrt", "tensorrt_rtx")
OURS = ("spai-toolkit",)


def test_the_tests_of_a_gpu_need_nothing_else(tmp_path: Path) -> None:
    """They are collected and run; here, without CuPy, each says why it is skipped."""
    bare = Lacking(tmp_path / "site", (*TRAINING, *TESTING, *ENGINES, *OURS))
    options = ("-m", "pytest", "-m", "gpu", "-q", "-rs", "-o", "addopts=", "-p", "no:cacheprovider", "tests/gpu")
    done = bare.python(*options, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert " skipped, " in done.stdout.splitlines()[-1]
    assert " error" not in done.stdout.splitlines()[-1]
    assert "CuPy is not installed" in done.stdout

"""Plans that TensorRT builds on a real GPU."""

import shutil
from pathlib import Path

import pytest

from spai_export.choices import TrtFor
from spai_export.tensorrt.plans import BuildOptions, build
from spai_export.tensorrt.platforms import TensorRTMissingError, ThisGpu
from spai_runtime.manifest import Manifest
from tests.support.models import TINY

SIZE = TINY.tile_size


@pytest.mark.gpu
def test_real_plans_are_built(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    try:
        found = ThisGpu.find("cuda:0")
    except TensorRTMissingError as error:
        pytest.skip(str(error))
    directory, cache = tmp_path / "detector", tmp_path / "timing.bin"
    shutil.copytree(request.getfixturevalue("tiny_detector"), directory)
    options = BuildOptions(batch_size=4, head_views=64, timing_cache=cache, trt_for=TrtFor.GPU)
    made = build(directory, Manifest.load(directory), directory, options)
    target = made.artifacts[0].target
    assert (target["tensorrt"], target["gpu"]) == (found.trt.__version__, found.gpu.name)
    assert cache.stat().st_size > 0
    assert made.notes[1].endswith("of 2 attentions are fused") or "not those of" in made.notes[1], made.notes
    engine = found.trt.Runtime(found.trt.Logger()).deserialize_cuda_engine((directory / "model.plan").read_bytes())
    shapes = [list(shape) for shape in engine.get_tensor_profile_shape("views", 0)]
    assert shapes == [[1, SIZE, SIZE, 3], [4, SIZE, SIZE, 3], [4, SIZE, SIZE, 3]]

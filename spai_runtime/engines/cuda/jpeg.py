"""JPEGs decoded on the GPU by nvImageCodec, for runs in which decoding on the host would take the longest.

nvImageCodec is told to interpolate chroma as libjpeg does; without that, levels of usual photographs are off by tens at
coloured edges. The rounding of another inverse cosine transform remains, and a detector that looks at the faintest
frequencies sees it: tests/gpu/test_decode.py says how much it moves scores. The GPU's own JPEG engine is not used,
since it is not documented how that one interpolates.
"""

import io
import os
import threading
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import Image

from spai_runtime.engines.base import DeviceImage
from spai_runtime.engines.cuda.gpu import Gpu, import_cupy
from spai_runtime.engines.cuda.slot import CudaImage
from spai_runtime.engines.devices import gpus
from spai_runtime.errors import EngineError
from spai_runtime.images import Picture
from spai_runtime.install import install

OPTIONS = ":fancy_upsampling=1"
DECODERS = 8  # at once: each keeps buffers on the GPU for the largest image that it has seen

_INSTALL = f"{install('nvimgcodec')}, or leave --decode out"


class JpegDecoder:
    """A decoder of JPEGs on the GPU of an encoder. Any thread may use it, and it must live longer than its images.

    :param device: `cuda:<index>`, exactly one: an image that is decoded on one GPU cannot be looked at on another
    :raises EngineError: `device` is not one GPU; or nvImageCodec is missing, or cannot decode there
    """

    def __init__(self, device: str) -> None:
        if device == "cpu" or len(gpus(device)) != 1:
            raise EngineError(f"--decode nvimgcodec needs exactly one GPU, not {device}; give --device cuda:0")
        self._codec, self._gpu = import_nvimgcodec(), Gpu.find(device)
        self._turns = threading.BoundedSemaphore(DECODERS)
        self._idle: list[_Decoder] = []
        if self.decode(Picture.open(_sample())) is None:  # else it would leave all to Pillow, and nobody would know
            raise EngineError(f"nvImageCodec decodes no JPEG on {device}: {_INSTALL}")

    def decode(self, picture: Picture) -> DeviceImage | None:
        """Decode a JPEG.

        :param picture: opened, not decoded
        :returns: None if it is no JPEG that nvImageCodec decodes as Pillow does, or if decoding fails; Pillow then
            decodes it
        """
        content = picture.jpeg()
        if content is None:
            return None
        with self._turns, suppress(Exception):  # whatever it trips over, Pillow has the sentence if it is the file
            decoder = self._taken()
            try:
                return decoder.decode(content, picture)
            finally:
                self._idle.append(decoder)
        return None

    def _taken(self) -> "_Decoder":
        """A decoder that no other thread uses: one of nvImageCodec's decoders serves one thread at a time."""
        try:
            return self._idle.pop()
        except IndexError:
            return _Decoder(self._codec, self._gpu)


class _Decoder:
    """One of nvImageCodec's decoders, with the stream on which its images are made and freed."""

    def __init__(self, codec: Any, gpu: Gpu) -> None:
        self._codec, self._gpu = codec, gpu
        backends = [codec.Backend(kind) for kind in (codec.GPU_ONLY, codec.HYBRID_CPU_GPU)]
        with gpu:
            self._stream = import_cupy().cuda.Stream(non_blocking=True)
            self._decoder = codec.Decoder(gpu.index, max_num_cpu_threads=1, backends=backends, options=OPTIONS)

    def decode(self, content: bytes, picture: Picture) -> DeviceImage | None:
        """Decode a file. :returns: the finished pixels; None if the decoder refuses the file"""
        cupy, source = import_cupy(), self._codec.CodeStream(content)
        with self._gpu:
            decoded = self._decoder.decode(source, params=parameters(self._codec), cuda_stream=self._stream.ptr)
            if decoded is None:
                return None
            pixels = cupy.asarray(decoded)
            self._stream.synchronize()  # what goes wrong on the GPU is raised here
            if pixels.shape != (picture.height, picture.width, 3) or pixels.dtype != np.uint8:
                return None
            return CudaImage(self._gpu.device, pixels, self._stream.record(cupy.cuda.Event(disable_timing=True)))


def parameters(codec: Any) -> Any:
    """The parameters of every decoding: RGB and not rotated, as in `Picture`."""
    return codec.DecodeParams(apply_exif_orientation=False, color_spec=codec.ColorSpec.SRGB)


def import_nvimgcodec() -> Any:
    """Import nvImageCodec. :raises EngineError: it is not installed"""
    os.environ.setdefault("PYNVIMGCODEC_VERBOSITY", "0")  # on stderr, it would remark upon what it refuses
    try:
        from nvidia import nvimgcodec  # noqa: PLC0415
    except ImportError as error:
        raise EngineError(f"nvImageCodec is not installed: {_INSTALL}") from error
    return nvimgcodec


def _sample() -> bytes:
    """A small JPEG whose chroma is subsampled, as in most JPEGs."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(file, "JPEG", subsampling=2)
    return file.getvalue()

"""JPEGs on the GPU: which are decoded there, what Pillow takes, and what another decoder does to a score."""

import io
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from spai_runtime import Detector, EngineError
from spai_runtime.engines.cuda.gpu import Gpu
from spai_runtime.engines.cuda.jpeg import DECODERS, OPTIONS, JpegDecoder, parameters
from spai_runtime.engines.replicas import Replicas
from spai_runtime.files.sources import Item
from spai_runtime.images import Picture, read_image
from spai_runtime.scoring.pipeline import score_items
from tests.support.detectors import detector, summary
from tests.support.engines import Sums
from tests.support.images import pixels
from tests.support.programs import cuda_engine

EXAMPLES = Path(__file__).parents[2] / "examples"


class Decoded:
    """nvimgcodec.Image: pixels on a GPU."""

    def __init__(self, image: NDArray[np.uint8], stream: int) -> None:
        import cupy  # noqa: PLC0415  the fake

        with cupy.cuda.Stream(non_blocking=True) as own:
            array = cupy.empty(image.shape, np.uint8)
            array.set(image, stream=own)
            own.synchronize()
        self.array, self.stream = array, stream

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        interface: dict[str, Any] = self.array.__cuda_array_interface__
        return interface


class Codec(ModuleType):
    """nvidia.nvimgcodec: decodes with Pillow, and takes one level from every pixel, so that it shows who decoded.

    :param refuses: what `decode` gives for any JPEG but the first, which tries it out
    """

    GPU_ONLY, HYBRID_CPU_GPU, CPU_ONLY = range(3)

    def __init__(self) -> None:
        super().__init__("nvidia.nvimgcodec")
        self.made: list[Any] = []
        self.decoded = 0
        self.refuses: Any = False
        self.pause = 0.0

    class ColorSpec:
        SRGB = "srgb"

    def Backend(self, kind: int) -> int:  # noqa: N802  its name
        return kind

    def CodeStream(self, content: bytes) -> bytes:  # noqa: N802
        assert isinstance(content, bytes)
        return content

    def DecodeParams(self, **options: object) -> dict[str, object]:  # noqa: N802
        return options

    def Decoder(self, device_id: int, **options: object) -> "FakeDecoder":  # noqa: N802
        made = FakeDecoder(self, device_id, options)
        self.made.append(made)
        return made


class FakeDecoder:
    def __init__(self, codec: Codec, device: int, options: dict[str, object]) -> None:
        self.codec, self.device, self.options = codec, device, options
        self.turn = threading.Lock()

    def decode(self, content: bytes, *, params: dict[str, object], cuda_stream: int) -> Decoded | None:
        assert self.turn.acquire(blocking=False), "used by two threads at once"
        assert cuda_stream
        assert params == {"apply_exif_orientation": False, "color_spec": "srgb"}
        time.sleep(self.codec.pause)
        try:
            self.codec.decoded += 1
            if self.codec.refuses and self.codec.decoded > 1:
                return self.codec.refuses()  # type: ignore[no-any-return]
            image = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
            return Decoded(image - (image > 0), cuda_stream)
        finally:
            self.turn.release()


@pytest.fixture
def codec(monkeypatch: pytest.MonkeyPatch) -> Codec:
    made, parent = Codec(), ModuleType("nvidia")
    parent.nvimgcodec = made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nvidia", parent)
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", made)
    return made


def jpeg(image: NDArray[np.uint8], mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def photo(height: int, width: int) -> NDArray[np.uint8]:
    """Colours that change within a few pixels, as chroma does that is worth interpolating."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 6, width // 6, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def test_scores_of_jpegs_are_of_the_gpus_pixels(machine: Any, codec: Codec, tmp_path: Path) -> None:
    """And those of all other files of Pillow's."""
    images = {f"{index}.{suffix}": pixels(40 + index, 50, index) for index, suffix in enumerate(("jpg", "png") * 4)}
    for name, image in images.items():
        Image.fromarray(image).save(tmp_path / name)
    wanted = [Item(tmp_path / name, name) for name in images]
    engine = cuda_engine(machine, "cuda:0")
    decoder = JpegDecoder(engine.device)
    assert [made.device for made in codec.made] == [0]
    assert codec.made[0].options == {"max_num_cpu_threads": 1, "backends": [0, 1], "options": OPTIONS}
    found = summary(list(score_items(detector(engine), wanted, workers=3, decode_on_gpu=decoder.decode)))
    levels = [read_image(item.path) for item in wanted]
    shown = [level - (level > 0) * (name.endswith("jpg")) for level, name in zip(levels, images, strict=True)]
    host = detector(Sums())
    assert found == [(name, host.score(level).logit, "") for name, level in zip(images, shown, strict=True)]
    assert codec.decoded == 1 + 4
    machine.check()


@pytest.mark.parametrize(
    ("content", "taken"),
    [
        (jpeg(pixels(20, 30)), True),
        (jpeg(pixels(20, 30), "L"), True),
        (jpeg(pixels(20, 30), progressive=True), True),
        (jpeg(pixels(20, 30)) + b"a trailer", True),
        (jpeg(pixels(20, 30), "CMYK"), False),
        (jpeg(pixels(20, 30), keep_rgb=True), False),
        (jpeg(pixels(20, 30))[:-300], False),
    ],
    ids=["colour", "grey", "progressive", "trailer", "cmyk", "rgb", "truncated"],
)
def test_jpegs_that_every_decoder_reads_alike(content: bytes, taken: bool, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    for source in (content, tmp_path / "a.jpg", str(tmp_path / "a.jpg")):
        assert Picture.open(source).jpeg() == (content if taken else None)


def test_what_is_no_jpeg_file() -> None:
    png = io.BytesIO()
    Image.fromarray(pixels(8, 8)).save(png, "PNG")
    assert Picture.open(png.getvalue()).jpeg() is None
    assert Picture.from_array(pixels(8, 8)).jpeg() is None


def test_a_rotated_jpeg_with_its_thumbnail(tmp_path: Path) -> None:
    """A thumbnail is a whole JPEG within the file, which may be cut off after it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    content = jpeg(pixels(80, 60), exif=exif.tobytes() + jpeg(pixels(8, 8)))
    assert Picture.open(content).jpeg() == content
    assert Picture.open(content[: len(content) // 2]).jpeg() is None
    (tmp_path / "a.jpg").write_bytes(content)
    gone = Picture.open(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").unlink()
    assert gone.jpeg() is None


def broken() -> None:
    raise RuntimeError("nvJPEG trips")


@pytest.mark.parametrize(
    "refuses", [lambda: None, broken, lambda: Decoded(pixels(5, 5), 1)], ids=["None", "raises", "size"]
)
def test_what_it_refuses_is_pillows(machine: Any, codec: Codec, tmp_path: Path, refuses: Any) -> None:
    """Whose sentence stands where the file is at fault."""
    good, bad = jpeg(pixels(40, 50)), jpeg(pixels(40, 50))
    (tmp_path / "good.jpg").write_bytes(good)
    (tmp_path / "bad.jpg").write_bytes(bad[:-300] + b"\xff\xd9")  # its end is there, some of its middle is not
    (tmp_path / "half.jpg").write_bytes(bad[:-300])
    engine = cuda_engine(machine, "cuda:0")
    decoder = JpegDecoder(engine.device)
    codec.refuses = refuses
    wanted = [Item(tmp_path / f"{name}.jpg", name) for name in ("good", "bad", "half")]
    found = summary(list(score_items(detector(engine), wanted, decode_on_gpu=decoder.decode)))
    assert found == summary(list(score_items(detector(Sums()), wanted)))
    assert found[0][1] is not None
    assert "truncated" in found[2][2]
    assert codec.decoded == 1 + 2
    assert len(codec.made) <= 2  # a decoder that failed is used again


@pytest.mark.usefixtures("machine")
def test_threads_take_turns(codec: Codec) -> None:
    """The fake fails where two threads use a decoder at once."""
    decoder = JpegDecoder("cuda:0")
    content, images = jpeg(pixels(16, 16)), list[Any]()
    codec.pause = 0.01
    threads = [
        threading.Thread(target=lambda: images.append(decoder.decode(Picture.open(content))))
        for _ in range(3 * DECODERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(images) == 3 * DECODERS
    assert all(image is not None for image in images)
    assert 1 < len(codec.made) <= DECODERS


@pytest.mark.usefixtures("codec")
def test_nothing_to_decode_with(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (cuda_engine(machine, device) for device in ("cuda:0", "cuda:1"))
    for engine, name in ((Sums(), "cpu"), (Replicas([one, other]), "cuda:0,1")):
        with pytest.raises(EngineError, match=f"needs exactly one GPU, not {name}; give --device cuda:0"):
            JpegDecoder(engine.device)
    monkeypatch.setattr(FakeDecoder, "decode", lambda *_, **__: None)
    with pytest.raises(EngineError, match="nvImageCodec decodes no JPEG on cuda:1: pip install"):
        JpegDecoder(other.device)
    monkeypatch.setitem(sys.modules, "nvidia", None)
    with pytest.raises(EngineError, match=r"nvImageCodec is not installed: pip install '\.\[nvimgcodec\]'"):
        JpegDecoder(one.device)


def test_every_level_off_by_one() -> None:
    """Levels that are off by −1, 0 or 1 at random, all over, move the demo detector's scores by at most 0.04.

    It was made to see faint frequencies, and this is what rounding differently comes to at worst: 0.034 was measured on
    examples/, of which the most sensitive are here, while ±2 moves them by up to 0.08 and ±6 by up to 0.9. So a
    decoder must do as libjpeg does in all but rounding.
    """
    generator = np.random.default_rng(0)
    with Detector.load(device="cpu") as demo:
        for name in ("photo_china.jpg", "generated_4.jpg"):
            image = read_image(EXAMPLES / name)
            other = (image.astype(int) + generator.integers(-1, 2, image.shape)).clip(0, 255).astype(np.uint8)
            assert 0 < abs(demo.score(other).score - demo.score(image).score) <= 0.04


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
def test_nvimgcodecs_pixels_on_the_host(mode: str, progressive: bool) -> None:
    """Its libjpeg-turbo and Pillow's agree to the bit with OPTIONS; without, chroma is off by tens of levels."""
    codec = pytest.importorskip("nvidia.nvimgcodec", reason="nvImageCodec is not installed")
    levels = {}
    for options in (OPTIONS, ":fancy_upsampling=0"):
        decoder = codec.Decoder(
            codec.NVIMGCODEC_DEVICE_CPU_ONLY, backends=[codec.Backend(codec.CPU_ONLY)], options=options
        )
        for subsampling in (0, 1, 2):
            content = jpeg(photo(203, 301), mode, quality=90, subsampling=subsampling, progressive=progressive)
            found = np.asarray(decoder.decode(codec.CodeStream(content), params=parameters(codec)))
            levels[options, subsampling] = np.abs(found.astype(int) - read_image(content)).max()
    assert [levels[OPTIONS, subsampling] for subsampling in (0, 1, 2)] == [0, 0, 0]
    assert (levels[":fancy_upsampling=0", 2] > 20) == (mode == "RGB")


@pytest.mark.gpu
def test_nvjpegs_scores() -> None:
    """On a GPU: levels at most 6 from libjpeg's, as nvImageCodec's own tests want it, and scores at most 0.05."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    pytest.importorskip("nvidia.nvimgcodec", reason="nvImageCodec is not installed")
    try:
        Gpu.find("cuda:0")
    except EngineError as error:
        pytest.skip(str(error))
    with Detector.load(device="cuda:0") as demo:
        decoder = JpegDecoder(demo.encoder.device)
        for path in sorted(EXAMPLES.glob("*.jpg")):
            image: Any = decoder.decode(Picture.open(path))
            assert image is not None
            (array, _) = image._owners
            found = cupy.asnumpy(array)
            assert np.abs(found.astype(int) - read_image(path)).max() <= 6
            assert abs(demo.score(found).score - demo.score(path).score) <= 0.05

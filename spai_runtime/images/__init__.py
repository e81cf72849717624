"""Images: a path or bytes become pixels, or one clear ImageError."""

from spai_runtime.images.formats import EXTENSIONS, FORMATS, UNTRUSTED_FORMATS, Format
from spai_runtime.images.opening import Source
from spai_runtime.images.picture import BAND_BYTES, Filter, Picture, pixel_limit, read_image

__all__ = [
    "BAND_BYTES",
    "EXTENSIONS",
    "FORMATS",
    "UNTRUSTED_FORMATS",
    "Filter",
    "Format",
    "Picture",
    "Source",
    "pixel_limit",
    "read_image",
]

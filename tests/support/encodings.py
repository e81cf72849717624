"""Images on their way through an encoder, without a pipeline around them."""

import numpy as np
from numpy.typing import NDArray

from spai_runtime.images import Picture
from spai_runtime.scoring.encoding import Encoding
from spai_runtime.scoring.image import Allocate, ImageState
from spai_runtime.views import ViewPolicy


def encoding(
    image: NDArray[np.uint8], policy: ViewPolicy, width: int = 3, allocate: Allocate | None = None
) -> Encoding:
    """A decoded image, for an encoder whose features are that wide.

    :param allocate: memory that a GPU fetches pixels from; None where the host crops them
    """
    state, layout = ImageState(), policy.layout(*image.shape[:2])
    taken = Encoding(state, state.use(policy.resize, layout.height, layout.width, allocate), layout, width)
    state.decode(Picture.from_array(image), None)
    return taken

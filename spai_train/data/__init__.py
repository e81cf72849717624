"""Images on their way into training: tables, stores, order, augmentation; and simulated ones."""

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]
Image = NDArray[np.uint8]

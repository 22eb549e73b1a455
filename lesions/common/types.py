"""The types of arrays that functions take and return; docstrings give their shapes."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int64]  # (n,) class indices, in the order of the dataset's classes
Rows = npt.NDArray[np.int64]  # (n,) indices into the array of photos
Pixels = npt.NDArray[np.uint8]  # (..., height, width, 3), RGB
Features = npt.NDArray[np.float32]  # (n, f)

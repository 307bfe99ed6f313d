"""Types of arrays, of any shape."""

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Flags = npt.NDArray[np.uint8]

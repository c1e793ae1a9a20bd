"""Data sets by name, from a file or a folder, or from arrays: digits as bits or as grey images, or one's own.

Names:

``digits``      scikit-learn's bundled 8x8 digits (1,797 points, ten classes); nothing is downloaded.
``mnist-012``   the first 1,000 training images of each of the digits 0, 1 and 2 of MNIST (Baiesi & Rosso, IV.1).
``mnist``       all 60,000 training images of MNIST; its 10,000 test images are held out.

Files and folders: see ``files``.  MNIST is looked for in the folder ``THERMORUN_DATA``, then in the cache, then
downloaded: see ``idx``.
"""

from thermorun.datasets.files import read_arrays
from thermorun.datasets.sets import (
    ARRAY,
    NAMES,
    Dataset,
    Images,
    from_arrays,
    images_from_arrays,
    load,
    load_images,
)

__all__ = [
    "ARRAY",
    "NAMES",
    "Dataset",
    "Images",
    "from_arrays",
    "images_from_arrays",
    "load",
    "load_images",
    "read_arrays",
]

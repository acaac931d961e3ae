"""Handwritten digits of 8x8 pixels that come with scikit-learn: real data with nothing to download.

1,797 images of the UCI "Optical Recognition of Handwritten Digits" set (Alpaydin & Kaynak 1998).
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attelbo.data.sources.base import Images, ImageSource, Splits


class Digits(ImageSource):
    """The digits, 8x8 in 17 grey levels, which are spread over 0..255 by rounding.

    The test split is stratified and fixed: of each class, every fifth image in the file's order (355 of 1,797).
    """

    shape = (1, 8, 8)
    n_classes = 10

    def load(self, root: Path) -> Splits:
        """From the installed package; ``root`` is not used."""
        digits = _bunch()
        x = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
        y = torch.from_numpy(digits.target.astype(np.int64))
        position_in_class = torch.empty_like(y)
        for label in range(10):
            rows = (y == label).nonzero().view(-1)
            position_in_class[rows] = torch.arange(len(rows))
        test = position_in_class % 5 == 4
        return Splits(Images(x[~test], y[~test]), Images(x[test], y[test]))


@lru_cache(1)
def _bunch() -> Any:
    """Scikit-learn's, which parses a compressed table of text each time: kept for the next run of this process."""
    from sklearn.datasets import load_digits  # slow to import

    return load_digits()

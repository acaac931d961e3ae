"""The embedded digits against scikit-learn's own."""

from pathlib import Path

import numpy as np
import torch

from attelbo.data.sources import Digits


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    train, test = Digits().load(Path("nowhere"))
    assert (train.x.shape, test.x.shape) == ((1442, 1, 8, 8), (355, 1, 8, 8))
    published = load_digits()
    everything = torch.cat([train.x, test.x]).flatten(1)
    assert sorted(everything.mul(16 / 255).round().int().tolist()) == sorted(published.data.astype(int).tolist())
    # Stratified: of each class's n images, n // 5 are for testing.
    assert test.y.bincount().tolist() == [n // 5 for n in np.bincount(published.target)]
    assert int(everything.max()) == 255


def test_what_is_kept_is_not_what_is_handed_out(tmp_path):
    first = Digits().load(tmp_path)
    before = first.train.x.clone(), first.train.y.clone()
    first.train.x.zero_()
    first.train.y.zero_()
    again = Digits().load(tmp_path)
    assert torch.equal(again.train.x, before[0])
    assert torch.equal(again.train.y, before[1])

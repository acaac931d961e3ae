"""Pixels have the color of the slot that owns them, and a picture has a row for each slot."""

import numpy as np
import pytest
import torch

from attelbo.data.batch import DataSpec
from attelbo.models import build_slot_autoencoder
from attelbo.training.boxes import OBJECT_COLORS
from attelbo.training.callbacks import Segments
from attelbo.training.callbacks.segments import owners
from exhibited import Bits


class Data(Bits):
    spec = DataSpec("bits", (1, 8, 8), "binary", n_objects=3)


def test_colors_of_owners() -> None:
    images = torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]])
    drawn = owners(images, torch.tensor([[[0, 0], [1, 6]]]), OBJECT_COLORS)[0]
    first, second = (torch.tensor(color) for color in OBJECT_COLORS[:2])
    assert torch.equal(drawn[:, 0, 0], first)
    torch.testing.assert_close(drawn[:, 0, 1], 0.25 * first)
    assert torch.equal(drawn[:, 1, 0], second)
    assert torch.equal(drawn[:, 1, 1], second)  # five colors: the seventh is the second again


@pytest.mark.parametrize("n", [1, 20])
def test_pictures_of_a_model(n) -> None:
    torch.manual_seed(0)
    model = build_slot_autoencoder(
        Data.spec,
        encoder={"_target_": "attelbo.networks.SlotEncoder", "channels": [4], "dim": 6, "n_slots": 3},
        decoder={"_target_": "attelbo.networks.SlotDecoder", "channels": [4, 4]},
        posterior={"_target_": "attelbo.latent.posteriors.SpatialNormalPosterior"},
        prior={"_target_": "attelbo.latent.priors.StandardNormal"},
        likelihood={"_target_": "attelbo.latent.likelihoods.Bernoulli"},
        objective={"_target_": "attelbo.latent.objectives.ELBO"},
        latent_dim=5,
        optimizer={},
        scheduler={"_target_": "attelbo.models.schedulers.Constant"},
    )
    works = Segments(n).draw(model, Data())  # pyright: ignore[reportArgumentType]
    again = Segments(n).draw(model, Data())  # pyright: ignore[reportArgumentType]
    assert set(works) == {"segments"}
    assert np.array_equal(works["segments"], again["segments"])
    rows, columns = 3 + 3, min(n, 12)
    assert isinstance(works["segments"], np.ndarray)
    height, width, _ = works["segments"].shape
    assert height == rows * 66 + 2
    assert 0 < width - (columns * 66 + 2) < 130  # the names of the rows
    assert Segments().draw(torch.nn.Identity(), Data()) == {}  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"^n must be at least 1, got 0"):
        Segments(0)

"""Boxes stand around what AIR finds, and where there is nothing there is none."""

import numpy as np
import pytest
import torch

from attelbo.attention.glimpses import box_of
from attelbo.models import build_air
from attelbo.training.boxes import OBJECT_COLORS
from attelbo.training.callbacks import Objects
from attelbo.training.callbacks.objects import boxed
from exhibited import Bits


def test_a_box_around_each_object_that_is_there() -> None:
    places = torch.tensor([[[0.5, 0.25, -0.25], [0.25, float("nan"), 0.0]], [[torch.nan] * 3] * 2])
    drawn = boxed(torch.zeros(2, 1, 96, 96), places)
    assert drawn[1].abs().sum() == 0
    top, left, bottom, right = (round(edge) for edge in box_of(places[0, :1], (96, 96))[0].tolist())
    assert (bottom - top, right - left) == (48, 48)
    inside = drawn[0].sum(0) > 0
    rows, columns = inside.nonzero(as_tuple=True)
    found = (int(rows.min()), int(columns.min()), int(rows.max()), int(columns.max()))
    assert all(abs(a - b) <= 1 for a, b in zip(found, (top, left, bottom, right), strict=True))
    assert torch.equal(drawn[0][:, inside].unique(dim=1)[:, 0], torch.tensor(OBJECT_COLORS[0]))  # that of the first


@pytest.mark.parametrize("n", [1, 20])
def test_pictures_of_a_model(n) -> None:
    torch.manual_seed(0)
    model = build_air(
        Bits.spec,
        encoder={"_target_": "attelbo.networks.MLPEncoder", "hidden": [4]},
        decoder={"_target_": "attelbo.networks.MLPDecoder", "hidden": [4]},
        likelihood={"_target_": "attelbo.latent.likelihoods.Bernoulli"},
        objective={"_target_": "attelbo.latent.objectives.ELBO"},
        optimizer={},
        scheduler={"_target_": "attelbo.models.schedulers.Constant"},
        **{"latent_dim": 2, "hidden": 4, "steps": 2, "glimpse": 4, "presence": 0.5, "cost": 0.0},
        **{"object_size": 0.5, "size_std": 0.1, "spread": 0.5, "waiting": 0.0},
    )
    works = Objects(n).draw(model, Bits())  # pyright: ignore[reportArgumentType]
    again = Objects(n).draw(model, Bits())  # pyright: ignore[reportArgumentType]
    assert set(works) == {"objects"}
    assert np.array_equal(works["objects"], again["objects"])
    assert Objects().draw(torch.nn.Identity(), Bits()) == {}  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"^n must be at least 1, got 0"):
        Objects(0)

"""Which layers attend to which: what is drawn is what the model says, and no other exhibit draws it."""

import numpy as np
import pytest
import torch

from attelbo.models import build_deep_attentive
from attelbo.training.callbacks import AttentionMaps, Depths
from attelbo.training.maps import attention_map
from exhibited import Bits


def model(blocks, **changes):
    torch.manual_seed(0)
    return build_deep_attentive(
        Bits.spec,
        likelihood={"_target_": "attelbo.latent.likelihoods.Bernoulli"},
        objective={"_target_": "attelbo.latent.objectives.ELBO"},
        channels=8,
        latent_channels=1,
        blocks=blocks,
        optimizer={},
        scheduler={"_target_": "attelbo.models.schedulers.Constant"},
        attention={"_target_": "attelbo.attention.MultiHeadAttention", "heads": 2},
        dim=4,
        **changes,
    )


def test_a_row_for_each_layer_and_a_column_for_each_that_it_may_attend_to() -> None:
    made = model((1, 0, 2, 1))
    works = Depths(6).draw(made, Bits())  # pyright: ignore[reportArgumentType]
    weights = made.eval().depth_weights(Bits.materialize(torch.arange(6) * 2, "validation").x)
    layers = ["1:\u00a01x1", "2:\u00a02x2", "3:\u00a02x2", "4:\u00a08x8"]
    expected = {
        "attention_above": attention_map(
            weights.above[2:, :3],
            layers[2:],
            layers[:3],
            "Layers above, seen by each layer of the hierarchy",
            axes=("layer", "layer above, from the top on"),
        ),
        "attention_evidence": attention_map(
            weights.evidence,
            layers,
            ["input:\u00a08x8", "1:\u00a08x8", "2:\u00a02x2", "3:\u00a02x2", "4:\u00a01x1"],
            "Blocks that have read the image, seen by the posterior of each layer",
            axes=("layer", "block, from the image on"),
        ),
    }
    assert set(works) == set(expected)
    for name, picture in expected.items():
        np.testing.assert_array_equal(works[name], picture)


def test_two_layers_have_nothing_to_choose_from() -> None:
    assert set(Depths(6).draw(model((0, 2)), Bits())) == {"attention_evidence"}  # pyright: ignore[reportArgumentType]


def test_over_images_only_attention_between_pixels_is_drawn() -> None:
    """Layers of one pixel attend for each image once, to four maps that are no grid of two by two."""
    assert AttentionMaps().draw(model((0, 0, 0, 4)), Bits()) == {}
    drawn = AttentionMaps(n_layers=1).draw(model((0, 1, 1, 4), attention_at=[4]), Bits())
    assert list(drawn) == ["attention_downward_5_out_1"]


def test_numbers_of_images() -> None:
    with pytest.raises(ValueError, match=r"^n_images must be at least 1, got 0"):
        Depths(0)

"""Sizes below 1 are refused by name before a layer is made of them, whatever part they are given to."""

from functools import partial

import pytest

from attelbo.attention import FeedForward, LatentAttention, MultiHeadAttention, Perceiver, WindowAttention2d
from attelbo.networks import DeepSets, SetReader, SetTransformer, SlotEncoder

MADE = {
    "dim": (
        partial(FeedForward, hidden=4),
        partial(Perceiver, n_latents=2),
        partial(SetTransformer, 2, 2, 2),
        partial(SlotEncoder, (1, 8, 8)),
    ),
    "features": (partial(SetReader, dim=4),),
    "heads": (partial(WindowAttention2d, 4),),
    "in_features": (
        partial(DeepSets, n_outputs=2, out_features=2),
        partial(SetTransformer, n_outputs=2, out_features=2, dim=4),
    ),
    "memory_dim": (partial(MultiHeadAttention, 4, 2), partial(LatentAttention, 4, 2, latent_dim=2)),
    "n_outputs": (partial(DeepSets, 2, out_features=2),),
    "out_features": (partial(DeepSets, 2, 2), partial(SetTransformer, 2, 2, dim=4)),
}


@pytest.mark.parametrize(
    ("name", "make"),
    [pytest.param(name, make, id=f"{make.func.__name__} {name}") for name, makes in MADE.items() for make in makes],
)
@pytest.mark.parametrize("size", [0, -1])
def test_a_size_below_one_is_refused_by_name(name, make, size):
    with pytest.raises(ValueError, match=rf"^{name} must .*got {size}$"):
        make(**{name: size})

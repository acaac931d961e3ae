"""Images and texts as tokens: patches by hand, padding that changes nothing."""

import pytest
import torch

from attelbo.attention import Learned, NoPosition
from attelbo.networks import (
    AttentionParts,
    AttentionPooling,
    BidirectionalGRU,
    ClassToken,
    MeanPooling,
    PatchEmbedding,
    TokenEmbedding,
    TokenEncoder,
    Transformer,
    patch_grid,
)

PARTS = AttentionParts(
    attention={"_target_": "attelbo.attention.MultiHeadAttention", "heads": 2},
    score={"_target_": "attelbo.attention.ScaledDot"},
    normalizer={"_target_": "attelbo.attention.Softmax"},
    position={"_target_": "attelbo.attention.NoPosition"},
)


def test_patches_are_rows_of_the_image_under_one_linear_layer():
    torch.manual_seed(0)
    embedding = PatchEmbedding((2, 4, 6), 2, 5, Learned(5, 6)).double()
    x = torch.randn(3, 2, 4, 6, dtype=torch.float64)
    tokens = embedding(x)
    assert tokens.shape == (3, 6, 5)
    weight = embedding.project.weight.flatten(1)
    for place, (top, left) in enumerate([(0, 0), (0, 2), (0, 4), (2, 0), (2, 2), (2, 4)]):
        patch = x[:, :, top : top + 2, left : left + 2].flatten(1)
        expected = patch @ weight.T + embedding.project.bias + embedding.position.table[place]
        torch.testing.assert_close(tokens[:, place], expected)


def test_patches_tile_the_image():
    assert patch_grid((1, 28, 14), 7) == (4, 2)
    with pytest.raises(
        ValueError, match=r"patch must divide the 28 x 14 pixels of an image: one of \[1, 2, 7, 14\], got 4"
    ):
        patch_grid((1, 28, 14), 4)
    with pytest.raises(ValueError, match="in_shape must be"):
        patch_grid((12,), 4)


@pytest.mark.parametrize("pooling", [ClassToken, lambda dim: MeanPooling(), AttentionPooling])
@pytest.mark.parametrize("network", ["transformer", "gru"])
def test_padding_changes_nothing(network, pooling):
    torch.manual_seed(0)
    mixes = (
        Transformer(8, PARTS, NoPosition(), layers=2, hidden=16) if network == "transformer" else BidirectionalGRU(8)
    )
    encoder = TokenEncoder(TokenEmbedding(9, 8, NoPosition()), mixes, pooling(8), padding=0).double()
    rows = [torch.tensor([3, 1, 4, 1, 5]), torch.tensor([2, 7]), torch.tensor([8])]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    together = encoder(torch.cat([padded, torch.zeros(3, 2, dtype=torch.int64)], 1))
    for row, tokens in enumerate(rows):
        torch.testing.assert_close(together[row], encoder(tokens.unsqueeze(0))[0])

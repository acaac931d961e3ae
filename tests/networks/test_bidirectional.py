"""A GRU from both ends, against torch's own on each row by itself."""

import pytest
import torch
from torch import nn

from attelbo.attention import Padding
from attelbo.networks import BidirectionalGRU

LENGTHS = (6, 4, 1)


def ours(**options) -> BidirectionalGRU:
    torch.manual_seed(0)
    return BidirectionalGRU(4, **options).double()


def theirs(network: BidirectionalGRU, layer: int) -> nn.GRU:
    """torch's bidirectional layer with the same weights."""
    twin = nn.GRU(4, 2, batch_first=True, bidirectional=True, dtype=torch.float64)
    weights = dict(network.from_left[layer].named_parameters())
    weights |= {f"{name}_reverse": value for name, value in network.from_right[layer].named_parameters()}
    twin.load_state_dict(weights)
    return twin


@pytest.mark.parametrize("layers", [1, 2])
def test_equals_torch_on_rows_of_any_length(layers):
    network = ours(layers=layers)
    x = torch.randn(3, 6, 4, dtype=torch.float64)
    valid = torch.arange(6) < torch.tensor(LENGTHS)[:, None]
    features = network(x, mask=Padding(valid))
    for row, length in enumerate(LENGTHS):
        expected = x[row : row + 1, :length]
        for layer in range(layers):
            expected, _ = theirs(network, layer)(expected)
        torch.testing.assert_close(features[row : row + 1, :length], expected)
    torch.testing.assert_close(network(x)[0], features[0])


def test_padding_changes_nothing():
    network = ours(layers=2)
    x = torch.randn(3, 6, 4, dtype=torch.float64)
    valid = torch.arange(6) < torch.tensor(LENGTHS)[:, None]
    other = torch.where(valid.unsqueeze(-1), x, 1e9)
    kept = valid.unsqueeze(-1)
    torch.testing.assert_close(network(other, mask=Padding(valid)) * kept, network(x, mask=Padding(valid)) * kept)


def test_sizes():
    with pytest.raises(ValueError, match="dim must be even, half for each direction, got 5"):
        BidirectionalGRU(5)
    with pytest.raises(ValueError, match="layers must be at least 1, got 0"):
        BidirectionalGRU(4, layers=0)

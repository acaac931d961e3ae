"""Recurrent layers in torch's own module, with the weights of ours."""

import torch
from torch import nn

from attelbo.networks.recurrent import Units


def torchs(units: Units, dropout: float = 0.0) -> nn.RNNBase:
    """nn.LSTM or nn.GRU of all layers at once."""
    first = units.layers[0]
    made = type(first)(
        first.input_size,
        units.hidden,
        len(units.layers),
        first.bias,
        batch_first=True,
        dropout=dropout,
        dtype=first.weight_ih_l0.dtype,
    )
    with torch.no_grad():
        for depth, layer in enumerate(units.layers):
            for name, weight in layer.named_parameters():
                getattr(made, name.replace("l0", f"l{depth}")).copy_(weight)
    return made

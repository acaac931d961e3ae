"""Recurrent encoders that ignore padding.

Their units have no bias, so that a state of zeros stays zero for inputs of zeros: rows are reversed or rolled so that
padding comes first, and torch's fused kernels run over whole batches, without reading lengths on the host.

Source: Hochreiter & Schmidhuber 1997 (LSTM); Cho et al. 2014, "Learning Phrase Representations using RNN
Encoder-Decoder" (gated recurrent units); reading the source backward: Sutskever, Vinyals & Le 2014.

Shapes: B sentences, S tokens, E features of a token, H of a state, L layers, M features of both directions together.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from attelbo.checks import check_below_one, check_choice, check_repetitions

CellName = Literal["gru", "lstm"]
Directions = Literal["forward", "backward", "both"]

State = tuple[Tensor, ...]
"""h (L, B, H), and of an LSTM c (L, B, H)."""


class Units(nn.Module):
    """Layers of recurrent units, whose state is a tuple for either cell.

    Args:
        cell: LSTM or gated recurrent units.
        in_features: of what they read.
        hidden: H.
        layers: L.
        dropout: between layers, in training.
        bias: whether they have one.

    Raises:
        ValueError: no such cell, no layers, or a dropout outside [0, 1).
    """

    def __init__(
        self, cell: CellName, in_features: int, hidden: int, layers: int, dropout: float, bias: bool = True
    ) -> None:
        super().__init__()
        check_choice("cell", cell, CellName)
        check_repetitions(layers=layers)
        check_below_one(dropout=dropout)
        kind: Any = nn.LSTM if cell == "lstm" else nn.GRU
        # One module per layer: cuDNN's own dropout between layers does not draw from torch's generators, so that a
        # resumed run would differ, and its step could not be a CUDA graph.
        self.layers = nn.ModuleList(
            kind(hidden if layer else in_features, hidden, batch_first=True, bias=bias) for layer in range(layers)
        )
        self.dropout = nn.Dropout(dropout)
        self.hidden = hidden
        self.is_lstm = cell == "lstm"

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x (B, T, in_features) from a state, zeros if None -> the last layer's h (B, T, H), and the final state."""
        parts: list[State] = []
        for depth, layer in enumerate(self.layers):
            given = None if state is None else tuple(part[depth : depth + 1] for part in state)
            x, last = layer(self.dropout(x) if depth else x, given[0] if given and not self.is_lstm else given)
            parts.append(last if self.is_lstm else (last,))
        return x, tuple(torch.cat(part) for part in zip(*parts, strict=True))


class RecurrentEncoder(nn.Module):
    """Reads embedded tokens in one direction or in both.

    Args:
        cell: LSTM or gated recurrent units.
        dim: E.
        hidden: H, of each direction.
        layers: L.
        directions: how the tokens are read.
        dropout: between layers, in training.

    Raises:
        ValueError: no such cell or directions, no layers, or a dropout outside [0, 1).
    """

    def __init__(
        self, cell: CellName, dim: int, hidden: int, layers: int, directions: Directions, dropout: float
    ) -> None:
        super().__init__()
        check_choice("directions", directions, Directions)
        names = ("forward", "backward") if directions == "both" else (directions,)
        self.names = names
        self.readers = nn.ModuleList(Units(cell, dim, hidden, layers, dropout, bias=False) for _ in names)
        self.out_features = hidden * len(names)
        parts = 2 if cell == "lstm" else 1
        self.bridges = nn.ModuleList(nn.Linear(2 * hidden, hidden) for _ in range(parts if len(names) == 2 else 0))

    def forward(self, x: Tensor, valid: Tensor) -> tuple[Tensor, State]:
        """x (B, S, E), of which ``valid`` (B, S) is not padding, padding at the end -> states (B, S, M), zeros in
        padding; the last state, for both directions tanh of a linear layer of their last ones."""
        x = x.masked_fill(~valid.unsqueeze(-1), 0.0)
        n_padding = (~valid).sum(1, keepdim=True)
        memories: list[Tensor] = []
        states: list[State] = []
        for name, units in zip(self.names, self.readers, strict=True):
            if name == "backward":
                memory, state = units(x.flip(1))
                memories.append(memory.flip(1))
            else:
                memory, state = units(_rolled(x, n_padding))
                memories.append(_rolled(memory, -n_padding))
            states.append(state)
        if len(states) == 1:
            return memories[0], states[0]
        both = (torch.cat(parts, -1) for parts in zip(*states, strict=True))
        return torch.cat(memories, -1), tuple(
            torch.tanh(bridge(part)) for bridge, part in zip(self.bridges, both, strict=True)
        )


def _rolled(x: Tensor, steps: Tensor) -> Tensor:
    """x (B, S, E) with each row rolled to the right by its own number of steps (B, 1)."""
    places = (torch.arange(x.shape[1], device=x.device) - steps) % x.shape[1]  # (B, S)
    return x.take_along_dim(places.unsqueeze(-1), 1)

"""Recurrent sequence-to-sequence networks, with and without attention.

    source -- embedding --> encoder --> states h_1 .. h_S, last state
    context c_u: none | the last state | attention to h_1 .. h_S
    token u, [c_u] -- embedding, decoder --> s_u;   [s_u; c_u; token u] -- readout --> logits

Source: Sutskever, Vinyals & Le 2014, "Sequence to Sequence Learning with Neural Networks" (no context); Cho et al.
2014, "Learning Phrase Representations using RNN Encoder-Decoder" (the last state, section 2.2); Bahdanau, Cho & Bengio
2015, "Neural Machine Translation by Jointly Learning to Align and Translate" (attention, queried by s_(u-1), eq. 4-6);
Luong, Pham & Manning 2015, "Effective Approaches to Attention-based Neural Machine Translation" (queried by s_u, eq.
5); a model's own predictions in place of true tokens: Bengio et al. 2015, "Scheduled Sampling for Sequence Prediction".

Where ours differs: the encoder's units have no bias (see ``networks.recurrent``); the query state is added to the
output of attention (see ``attention.Attention``); the readout is a linear layer, or one with tanh and another.

Shapes: B sentences, S tokens of the source, U tokens of the target, V tokens of the target's vocabulary, E features of
a token, H of a state, L layers.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from attelbo.attention import Attention, KeyValues, Padding
from attelbo.checks import check_at_least, check_choice, check_repetitions
from attelbo.networks.encoder_decoder import Decoding, EncoderDecoder
from attelbo.networks.recurrent import CellName, Directions, RecurrentEncoder, State, Units

Query = Literal["previous", "current"]

BOUND = 0.08
"""Initial weights are uniform in [-0.08, 0.08] (Sutskever et al. 2014, section 3.4)."""


@dataclass
class Source:
    """The encoded source, as the decoder uses it."""

    memory: KeyValues | None
    """The encoder's states, as keys and values."""
    valid: Tensor
    """Which of them are not padding, (B, S)."""
    last: Tensor
    """The last state of the last layer, (B, H)."""

    def reordered(self, rows: Tensor) -> "Source":
        """These rows (B',) of the batch."""
        memory = self.memory and KeyValues(*(part.index_select(0, rows) for part in self.memory))
        return Source(memory, self.valid.index_select(0, rows), self.last.index_select(0, rows))


class RecurrentEncoderDecoder(EncoderDecoder):
    """An encoder, a decoder that starts from its last state, and optionally attention between them.

    Args:
        n_source_tokens: of the source's vocabulary.
        n_tokens: V.
        padding: the padding token.
        attention: from H features to the encoder's; None: none.
        cell: LSTM or gated recurrent units.
        embedding: E.
        hidden: H.
        layers: L, on both sides.
        directions: how the source is read.
        feeds_last: without attention, whether the encoder's last state is the context of every step.
        query: which state is the query: the previous one, with the context as an input of the step, or the current one.
        readout: features of a layer with tanh in front of the logits; None: no such layer.
        teacher_forcing: the probability with which a step in training is given the true token, independently, instead
            of the likeliest one of the step before. In evaluation all are true, as in the likelihood.
        dropout: on embedded tokens and between layers, in training.

    Raises:
        ValueError: a number is out of range, or no such choice.
    """

    def __init__(
        self,
        n_source_tokens: int,
        n_tokens: int,
        padding: int,
        attention: Attention | None = None,
        *,
        cell: CellName = "gru",
        embedding: int = 256,
        hidden: int = 512,
        layers: int = 1,
        directions: Directions = "forward",
        feeds_last: bool = False,
        query: Query = "previous",
        readout: int | None = None,
        teacher_forcing: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice("query", query, Query)
        check_at_least(1, embedding=embedding, hidden=hidden, readout=readout)
        check_repetitions(layers=layers)
        if not 0 <= teacher_forcing <= 1:
            raise ValueError(f"teacher_forcing must be in [0, 1], got {teacher_forcing}")
        self.padding = padding
        self.teacher_forcing = teacher_forcing
        self.feeds_last = feeds_last and attention is None
        self.attends_first = attention is not None and query == "previous"
        self.alignment_layer = None if attention is None else "attention"
        has_context = self.aligns or self.feeds_last
        self.source = nn.Embedding(n_source_tokens, embedding)
        self.target = nn.Embedding(n_tokens, embedding)
        self.encoder = RecurrentEncoder(cell, embedding, hidden, layers, directions, dropout)
        fed = embedding + hidden * (self.attends_first or self.feeds_last)
        self.decoder = Units(cell, fed, hidden, layers, dropout)
        read = hidden + (hidden + embedding) * has_context
        self.readout = nn.Identity() if readout is None else nn.Sequential(nn.Linear(read, readout), nn.Tanh())
        self.output = nn.Linear(read if readout is None else readout, n_tokens)
        self.dropout = nn.Dropout(dropout)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -BOUND, BOUND)
        self.attention = attention  # which initializes itself

    def features(self, source: Tensor, target: Tensor) -> Tensor:
        known, state = self._read(source)
        if not self.training or self.teacher_forcing == 1:
            return self._all_steps(target, known, state)
        true = torch.rand(target.shape, device=target.device) < self.teacher_forcing
        token, features = target[:, 0], list[Tensor]()
        for u in range(target.shape[1]):
            read, state = self._steps(token.unsqueeze(1), known, state)
            features.append(read)
            if u + 1 < target.shape[1]:
                token = self._given(target[:, u + 1], true[:, u + 1], read[:, 0])
        return torch.cat(features, 1)

    def begin(self, source: Tensor, capacity: int) -> Decoding:
        known, state = self._read(source)
        return _RecurrentDecoding(self, known, state)

    def _read(self, source: Tensor) -> tuple[Source, State]:
        valid = source != self.padding
        memory, state = self.encoder(self.dropout(self.source(source)), valid)
        known = None if self.attention is None else self.attention.keys_values(memory)
        return Source(known, valid, state[0][-1]), state

    def _all_steps(self, target: Tensor, source: Source, state: State) -> Tensor:
        """The features after each token of target (B, U): step by step only if each step depends on the state
        before."""
        if not self.attends_first:
            return self._steps(target, source, state)[0]
        features = list[Tensor]()
        for token in target.split(1, 1):
            read, state = self._steps(token, source, state)
            features.append(read)
        return torch.cat(features, 1)

    def _steps(self, tokens: Tensor, source: Source, state: State) -> tuple[Tensor, State]:
        """For tokens (B, T), T = 1 where the previous state is the query: the features of the logits, and the final
        state."""
        x, context = self.dropout(self.target(tokens)), None
        if self.feeds_last:
            context = source.last.unsqueeze(1).expand(-1, x.shape[1], -1)
        elif self.attends_first:
            context = self._ask(state[0][-1].unsqueeze(1), source)
        h, state = self.decoder(x if context is None else torch.cat([x, context], -1), state)
        if context is None and self.attention is not None:
            context = self._ask(h, source)
        return self.readout(h if context is None else torch.cat([h, context, x], -1)), state

    @torch.no_grad()
    def _given(self, target: Tensor, true: Tensor, features: Tensor) -> Tensor:
        """The tokens of the next step, (B,): those of target (B,) that are ``true``, else the likeliest ones."""
        if features.device.type != "cpu":  # where shapes must not depend on values
            return torch.where(true, target, self.output(features).argmax(-1))
        own = ~true & (target != self.padding)
        return target.masked_scatter(own, self.output(features[own]).argmax(-1))

    def _ask(self, query: Tensor, source: Source) -> Tensor:
        """The output of attention from query (B, T, H) to the source, (B, T, H)."""
        assert self.attention is not None
        assert source.memory is not None
        return self.attention(query, source.memory, mask=Padding(source.valid))[0]


class _RecurrentDecoding(Decoding):
    """The state after the tokens so far."""

    def __init__(self, network: RecurrentEncoderDecoder, source: Source, state: State) -> None:
        super().__init__(source.last.device)
        self.network = network
        self.source = source
        self.state = state

    def advance(self, tokens: Tensor) -> Tensor:
        features, self.state = self.network._steps(tokens.unsqueeze(1), self.source, self.state)
        return self.network.output(features[:, 0])

    def reorder(self, rows: Tensor) -> None:
        self.exchange(rows)
        self.source = self.source.reordered(rows)

    def exchange(self, rows: Tensor) -> None:
        self.state = tuple(part.index_select(1, rows) for part in self.state)

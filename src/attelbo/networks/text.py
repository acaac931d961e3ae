"""Networks between a text and a vector: recurrent encoders, and decoders conditioned on z.

    x -- RecurrentTextEncoder --> h            (what else reads a text: ``TokenEncoder``, ``PerceiverTextEncoder``)
    z, x_<t -- TextDecoder --> features -- output --> logits of x_t

Source: Bowman et al. 2016, "Generating Sentences from a Continuous Space", section 3 (z makes the initial state); He et
al. 2019, "Lagging Inference Networks and Posterior Collapse in Variational Autoencoders", appendix B (z as an input of
every step too); Li et al. 2020, "Optimus: Organizing Sentences via Pre-trained Modeling of a Latent Space", section 3.1
(z as memory, z added to the embeddings).

Where ours differs: the encoder's units have no bias (see ``networks.recurrent``); the initial state is a linear map of
z, without tanh; a memory consists of tokens that go through the network in front of the text, where Optimus gives each
layer its own keys and values.

Shapes: N texts, T tokens, V vocabulary, D numbers of z, E features of a token, H of a state, L layers, M tokens of a
memory, F input features of the logits.
"""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from attelbo.attention import BlockCache
from attelbo.checks import check_at_least, check_choice
from attelbo.networks.encoder_decoder import Decoding
from attelbo.networks.recurrent import CellName, Directions, RecurrentEncoder, State, Units
from attelbo.networks.transformer import TokenEmbedding, Transformer, initialize_by_depth

StateOrInputs = Literal["state", "inputs", "both"]
LatentPlace = Literal["memory", "embedding", "cross"]


class RecurrentTextEncoder(nn.Module):
    """Tokens (N, T), padding at the end -> the last state of the last layer, (N, H); of an LSTM h and c, (N, 2 H).

    Args:
        embedding: of tokens, E features each.
        padding: the padding token.
        cell: LSTM or gated recurrent units.
        hidden: H.
        layers: L.
        directions: how the text is read.
        dropout: between layers, in training.

    Raises:
        ValueError: no such cell or directions, or no layers.
    """

    def __init__(
        self,
        embedding: nn.Embedding,
        padding: int,
        cell: CellName = "gru",
        hidden: int = 256,
        layers: int = 1,
        directions: Directions = "forward",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.padding = padding
        self.reader = RecurrentEncoder(cell, embedding.embedding_dim, hidden, layers, directions, dropout)
        self.out_features = hidden * (2 if cell == "lstm" else 1)

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.reader(self.embedding(x), x != self.padding)
        return torch.cat([part[-1] for part in state], -1)


class TextDecoder(nn.Module, ABC):
    """p(x | z) = prod_t p(x_t | x_<t, z): each token is predicted from those before it and z."""

    output: nn.Linear
    """From features to logits (..., V)."""
    n_before: int = 0
    """The number of places in front of the text that z takes up."""

    @abstractmethod
    def forward(self, z: Tensor, tokens: Tensor) -> Tensor:
        """The features (N, T, F) of the prediction after each of tokens (N, T), which begin with BOS; z (N, D)."""

    @abstractmethod
    def begin(self, z: Tensor, capacity: int) -> Decoding:
        """Start decoding texts of z (N, D), up to ``capacity`` tokens each."""


class RecurrentTextDecoder(TextDecoder):
    """Recurrent units with z as their initial state, or as an input of every step.

    Args:
        latent_dim: D.
        embedding: of V tokens, E features each.
        cell: LSTM or gated recurrent units.
        hidden: H, which is F.
        layers: L.
        latent_into: the initial state of all layers, the inputs, or both.
        dropout: on embedded tokens and between layers, in training.

    Raises:
        ValueError: no such cell, or place for z.
    """

    def __init__(
        self,
        latent_dim: int,
        embedding: nn.Embedding,
        cell: CellName = "gru",
        hidden: int = 256,
        layers: int = 1,
        latent_into: StateOrInputs = "state",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice("latent_into", latent_into, StateOrInputs)
        self.layers = layers
        self.reads_latent = latent_into != "state"
        n_tokens, dim = embedding.weight.shape
        self.embedding = embedding
        self.dropout = nn.Dropout(dropout)
        n_parts = 2 if cell == "lstm" else 1
        self.start = None if latent_into == "inputs" else nn.Linear(latent_dim, n_parts * layers * hidden)
        self.units = Units(cell, dim + latent_dim * self.reads_latent, hidden, layers, dropout)
        self.output = nn.Linear(hidden, n_tokens)

    def forward(self, z: Tensor, tokens: Tensor) -> Tensor:
        return self.steps(z, tokens, self.initial_state(z))[0]

    def begin(self, z: Tensor, capacity: int) -> Decoding:
        return _RecurrentWriting(self, z, self.initial_state(z))

    def initial_state(self, z: Tensor) -> State | None:
        """That of z (N, D); None: zeros."""
        if self.start is None:
            return None
        parts = self.start(z).unflatten(-1, (-1, self.layers, self.units.hidden))  # (N, 1 or 2, L, H)
        return tuple(part.transpose(0, 1).contiguous() for part in parts.unbind(1))

    def steps(self, z: Tensor, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        """The features (N, T, H) after each of tokens (N, T), and the state after the last."""
        x = self.dropout(self.embedding(tokens))
        if self.reads_latent:
            x = torch.cat([x, z.unsqueeze(1).expand(-1, x.shape[1], -1)], -1)
        return self.units(x, state)


class _RecurrentWriting(Decoding):
    """The state after the tokens so far."""

    def __init__(self, network: RecurrentTextDecoder, z: Tensor, state: State | None) -> None:
        super().__init__(z.device)
        self.network = network
        self.z = z
        self.state = state

    def advance(self, tokens: Tensor) -> Tensor:
        features, self.state = self.network.steps(self.z, tokens.unsqueeze(1), self.state)
        return self.network.output(features[:, 0])

    def reorder(self, rows: Tensor) -> None:
        self.z = self.z.index_select(0, rows)
        self.state = self.state and tuple(part.index_select(1, rows) for part in self.state)


class TransformerTextDecoder(TextDecoder):
    """A causal transformer that is conditioned on z in one of three ways.

    - ``memory``: M tokens computed from z precede the text, and every token may attend to them;
    - ``embedding``: a linear map of z is added to each embedded token;
    - ``cross``: every block has cross-attention to M tokens computed from z.

    Weights are initialized as those of ``models.LanguageModel``.

    Args:
        latent_dim: D.
        embedding: of tokens, with positions; with room for the memory.
        network: causal, over tokens (N, T, E), F = E; with attention to a memory for ``cross``.
        latent_into: how it is conditioned on z.
        n_memory: M; ignored for ``embedding``.
        tie_weights: whether embedding and output share their vectors.

    Raises:
        ValueError: ``n_memory`` below 1, or no such way.
    """

    def __init__(
        self,
        latent_dim: int,
        embedding: TokenEmbedding,
        network: Transformer,
        latent_into: LatentPlace = "memory",
        n_memory: int = 4,
        tie_weights: bool = True,
    ) -> None:
        super().__init__()
        check_choice("latent_into", latent_into, LatentPlace)
        check_at_least(1, n_memory=n_memory)
        n_tokens, dim = embedding.vectors.weight.shape
        self.latent_into: LatentPlace = latent_into
        self.n_memory = 1 if latent_into == "embedding" else n_memory
        self.n_before = n_memory if latent_into == "memory" else 0
        self.embedding = embedding
        self.network = network
        self.project = nn.Linear(latent_dim, self.n_memory * dim)
        self.output = nn.Linear(dim, n_tokens)
        initialize_by_depth(self, network)
        if tie_weights:
            self.output.weight = embedding.vectors.weight

    def forward(self, z: Tensor, tokens: Tensor) -> Tensor:
        latent = self.tokens_of(z)
        x = self.embedding(tokens, self.n_before)
        if self.latent_into == "memory":
            return self.network(torch.cat([latent.to(x.dtype), x], 1))[:, self.n_memory :]
        return self.read(x, latent)

    def begin(self, z: Tensor, capacity: int) -> Decoding:
        caches = self.network.caches(self.n_before + capacity)
        latent = self.tokens_of(z)
        if self.latent_into == "memory":
            self.network(latent, caches=caches)
        return _TransformerWriting(self, latent, caches)

    def tokens_of(self, z: Tensor) -> Tensor:
        """z (N, D) as tokens (N, M, E)."""
        return self.project(z).unflatten(-1, (self.n_memory, -1))

    def read(self, x: Tensor, latent: Tensor, caches: list[BlockCache] | None = None) -> Tensor:
        """Features (N, T, E) of embedded tokens x (N, T, E), which follow those in the caches, a memory included."""
        if self.latent_into == "embedding":
            x = x + latent
        return self.network(x, latent if self.latent_into == "cross" else None, caches=caches)


class _TransformerWriting(Decoding):
    """Keys and values of the tokens so far, in every block."""

    def __init__(self, network: TransformerTextDecoder, latent: Tensor, caches: list[BlockCache]) -> None:
        super().__init__(latent.device)
        self.network = network
        self.latent = latent
        self.caches = caches
        self.length = network.n_before

    def advance(self, tokens: Tensor) -> Tensor:
        x = self.network.embedding(tokens.unsqueeze(1), self.length)
        features = self.network.read(x, self.latent, self.caches)
        self.length += 1
        return self.network.output(features[:, 0])

    def reorder(self, rows: Tensor) -> None:
        self.latent = self.latent.index_select(0, rows)
        for cache in self.caches:
            cache.reorder(rows)

    def exchange(self, rows: Tensor) -> None:
        for cache in self.caches:
            cache.exchange(rows)

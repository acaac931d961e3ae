"""The sequence-to-sequence transformer.

    source -- embedding --> encoder --> memory;   target -- embedding --> decoder, memory --> logits

Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.1.

Shapes: B sentences, S tokens of the source, U tokens of the target, V tokens of the target's vocabulary, E features of
a token.
"""

from typing import Any

from torch import Tensor, nn

from attelbo.attention import Padding
from attelbo.networks.encoder_decoder import Decoding, EncoderDecoder
from attelbo.networks.transformer import TokenEmbedding, Transformer


class TransformerEncoderDecoder(EncoderDecoder):
    """An encoder that sees all of the source, and a causal decoder that attends to its output.

    All layers are initialized as in Glorot & Bengio 2010, embeddings included.

    Args:
        source: embeds the source.
        encoder: makes the memory.
        target: embeds the target.
        decoder: causal, with attention to the memory.
        n_tokens: V.
        padding: the padding token.
        tie_weights: whether the output layer shares the embedding of the target's tokens (Press & Wolf 2017).
        share_embeddings: whether source and target share one embedding.
    """

    def __init__(
        self,
        source: TokenEmbedding,
        encoder: Transformer,
        target: TokenEmbedding,
        decoder: Transformer,
        n_tokens: int,
        padding: int,
        tie_weights: bool = False,
        share_embeddings: bool = False,
    ) -> None:
        super().__init__()
        self.source = source
        self.encoder = encoder
        self.target = target
        self.decoder = decoder
        self.padding = padding
        self.alignment_layer = f"decoder.blocks.{len(decoder.blocks) - 1}.cross"
        self.output = nn.Linear(target.vectors.embedding_dim, n_tokens)
        self.reset_parameters()
        if share_embeddings:
            target.vectors.weight = source.vectors.weight
        if tie_weights:
            self.output.weight = target.vectors.weight

    def reset_parameters(self) -> None:
        """Glorot-uniform, biases zero; attention initializes itself."""
        for layer in (self.source.vectors, self.target.vectors, self.output):
            nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(self.output.bias)
        blocks: list[Any] = [*self.encoder.blocks, *self.decoder.blocks]
        for network in (each for block in blocks for each in block.feed_forwards()):
            network.reset_parameters()
        for stack in (self.encoder, self.decoder):
            stack.reset_parameters()

    def features(self, source: Tensor, target: Tensor) -> Tensor:
        memory, mask = self._read(source)
        return self.decoder(self.target(target), memory, memory_mask=mask)

    def begin(self, source: Tensor, capacity: int) -> Decoding:
        memory, mask = self._read(source)
        return _TransformerDecoding(self, memory, mask, capacity)

    def _read(self, source: Tensor) -> tuple[Tensor, Padding]:
        """The memory (B, S, E), and its padding mask."""
        mask = Padding(source != self.padding)
        return self.encoder(self.source(source), mask=mask), mask


class _TransformerDecoding(Decoding):
    """Keys and values of the tokens so far, in every block."""

    def __init__(self, network: TransformerEncoderDecoder, memory: Tensor, mask: Padding, capacity: int) -> None:
        super().__init__(memory.device)
        self.network = network
        self.valid = mask.valid
        self.memory = memory.masked_fill(~mask.valid.unsqueeze(-1), 0.0)  # once instead of at each step
        self.caches = network.decoder.caches(capacity)
        self.length = 0

    def advance(self, tokens: Tensor) -> Tensor:
        network = self.network
        x = network.target(tokens.unsqueeze(1), first=self.length)  # (B, 1, E)
        x = network.decoder(x, self.memory, memory_mask=Padding(self.valid, finite=True), caches=self.caches)
        self.length += 1
        return network.output(x[:, 0])

    def reorder(self, rows: Tensor) -> None:
        self.memory, self.valid = self.memory.index_select(0, rows), self.valid.index_select(0, rows)
        for cache in self.caches:
            cache.reorder(rows)

    def exchange(self, rows: Tensor) -> None:
        for cache in self.caches:
            cache.exchange(rows)

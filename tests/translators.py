"""What every network from sequence to sequence must be able to do: small ones, and targets one token at a time."""

import torch
from torch import Tensor

from attelbo.attention import Additive, Attention, Concat, Dot, General, Location
from attelbo.data.batch import BOS, EOS, PAD
from attelbo.networks import (
    AttentionParts,
    EncoderDecoder,
    RecurrentEncoderDecoder,
    TokenEmbedding,
    Transformer,
    TransformerEncoderDecoder,
)

V_SOURCE, V_TARGET = 9, 7


def transformer(
    *,
    layers: int = 2,
    position: str = "Learned",
    max_length: int = 12,
    n_tokens: tuple[int, int] = (V_SOURCE, V_TARGET),
    **options,
) -> TransformerEncoderDecoder:
    package = "attelbo.attention"
    parts = AttentionParts(
        attention={"_target_": f"{package}.MultiHeadAttention", "heads": 2},
        score={"_target_": f"{package}.ScaledDot"},
        normalizer={"_target_": f"{package}.Softmax"},
        position={"_target_": f"{package}.{position}"},
    )

    def side(size: int, *, decodes: bool) -> tuple[TokenEmbedding, Transformer]:
        place = parts.position_of(8, max_length, causal=decodes)
        stack = Transformer(8, parts, place, causal=decodes, cross=decodes, layers=layers, hidden=16, **options)
        return TokenEmbedding(size, 8, place), stack

    torch.manual_seed(0)
    sides = *side(n_tokens[0], decodes=False), *side(n_tokens[1], decodes=True)
    both = TransformerEncoderDecoder(*sides, n_tokens[1], PAD)
    return both.double().eval()


def recurrent(score: str | None = None, **options) -> RecurrentEncoderDecoder:
    torch.manual_seed(0)
    width = 2 if options.get("directions") == "both" else 1
    attention = None if score is None else Attention(6, 6 * width, score=SCORES[score]())
    network = RecurrentEncoderDecoder(
        V_SOURCE, V_TARGET, PAD, attention, **{"embedding": 4, "hidden": 6, "dropout": 0.0, **options}
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(8)  # as they begin, all of them say nearly the same
    return network.double().eval()


SCORES = {
    "additive": lambda: Additive(1, 6),
    "concat": lambda: Concat(1, 6),
    "dot": Dot,
    "general": lambda: General(1, 6),
    "location": lambda: Location(1, 6, 12),
}


def sentences(*lengths: int, n_tokens: int = V_SOURCE, seed: int = 0) -> Tensor:
    """BOS, so many tokens, EOS, PAD."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.full((len(lengths), max(lengths) + 2), PAD)
    for row, length in zip(rows, lengths, strict=True):
        row[0], row[length + 1] = BOS, EOS
        row[1 : length + 1] = torch.randint(3, n_tokens, (length,), generator=generator)
    return rows


def step_by_step(network: EncoderDecoder, source: Tensor, target: Tensor) -> Tensor:
    """The logits (B, U, V) of ``forward``, one token after the other."""
    decoding = network.begin(source, target.shape[1])
    return torch.stack([decoding.advance(tokens) for tokens in target.T], 1)

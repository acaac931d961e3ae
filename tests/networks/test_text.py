"""Networks between texts and vectors: all at once and token by token, what sees what, padding."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attelbo.data.batch import BOS, PAD
from attelbo.networks import (
    AttentionParts,
    RecurrentTextDecoder,
    RecurrentTextEncoder,
    TextDecoder,
    TokenEmbedding,
    Transformer,
    TransformerTextDecoder,
)
from attelbo.networks.transformer import initialize_by_depth
from torchs_units import torchs

N, T, V, D = 3, 6, 9, 4


def randomized(module: Any) -> Any:
    """Away from its initialization, in float64 and evaluation mode."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
    return module.double().eval()


def recurrent(**options: Any) -> RecurrentTextDecoder:
    return randomized(RecurrentTextDecoder(D, nn.Embedding(V, 5), hidden=6, **options))


def transformer(position: str = "Learned", **options: Any) -> TransformerTextDecoder:
    parts = AttentionParts(
        attention={"_target_": "attelbo.attention.MultiHeadAttention", "heads": 2},
        score={"_target_": "attelbo.attention.ScaledDot"},
        normalizer={"_target_": "attelbo.attention.Softmax"},
        position={"_target_": f"attelbo.attention.{position}"},
    )
    place = parts.position_of(8, T + 3, causal=True)
    stack = Transformer(8, parts, place, causal=True, cross=options.get("latent_into") == "cross", layers=2)
    return randomized(TransformerTextDecoder(D, TokenEmbedding(V, 8, place), stack, n_memory=3, **options))


def test_what_adds_to_the_tokens_begins_smaller_the_deeper_the_network() -> None:
    decoder = transformer(latent_into="cross")
    initialize_by_depth(decoder, decoder.network)
    added = decoder.network.residual_outputs()
    assert len(added) == 6
    for layer in added:
        assert layer.weight.std().item() == pytest.approx(0.02 / math.sqrt(6), rel=0.25)
    assert decoder.output.weight.std().item() == pytest.approx(0.02, rel=0.25)


DECODERS = {
    **{
        f"{cell} {place}": lambda cell=cell, place=place: recurrent(cell=cell, latent_into=place, layers=2)
        for cell in ("gru", "lstm")
        for place in ("state", "inputs", "both")
    },
    **{place: lambda place=place: transformer(latent_into=place) for place in ("memory", "embedding", "cross")},
    "memory, rotary": lambda: transformer("Rotary"),
    "cross, untied": lambda: transformer("Alibi", latent_into="cross", tie_weights=False),
}


@pytest.fixture(params=DECODERS)
def decoder(request) -> TextDecoder:
    return DECODERS[request.param]()


def latents() -> Tensor:
    return torch.randn(N, D, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def texts() -> Tensor:
    tokens = torch.randint(3, V, (N, T), generator=torch.Generator().manual_seed(3))
    tokens[:, 0] = BOS
    return tokens


def logits(decoder: TextDecoder, z: Tensor, tokens: Tensor) -> Tensor:
    return decoder.output(decoder(z, tokens))


def test_token_by_token_equals_all_at_once(decoder) -> None:
    writing = decoder.begin(latents(), T)
    steps = torch.stack([writing.advance(column) for column in texts().unbind(1)], 1)
    torch.testing.assert_close(steps, logits(decoder, latents(), texts()))


def test_rows_that_are_named_go_on(decoder) -> None:
    rows = torch.tensor([2, 0, 0, 1])
    writing = decoder.begin(latents(), T)
    for column in texts()[:, :3].unbind(1):
        writing.advance(column)
    writing.reorder(rows)
    found = writing.advance(texts()[rows, 3])
    torch.testing.assert_close(found, logits(decoder, latents(), texts())[rows, 3])


def test_every_prediction_knows_of_z_and_none_of_what_comes(decoder) -> None:
    z = latents().requires_grad_()
    out = logits(decoder, z, texts())
    for place in range(T):
        (gradient,) = torch.autograd.grad(out[:, place, 0].sum(), z, retain_graph=True)
        assert (gradient.abs().sum(1) > 1e-9).all()
    for place in range(1, T):
        other = texts()
        other[:, place:] = 3 + (other[:, place:] - 2) % (V - 3)
        changed = logits(decoder, latents(), other)
        torch.testing.assert_close(changed[:, :place], out[:, :place])
        assert not torch.isclose(changed[:, place:], out[:, place:]).all()


def test_a_decoder_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match=r"^cell must be gru or lstm, got 'rnn'$"):
        recurrent(cell="rnn")
    with pytest.raises(ValueError, match=r"^latent_into must be state or inputs or both, got 'memory'$"):
        recurrent(latent_into="memory")
    with pytest.raises(ValueError, match=r"^latent_into must be memory or embedding or cross, got 'state'$"):
        transformer(latent_into="state")
    with pytest.raises(ValueError, match=r"^directions must be forward or backward or both, got 'up'$"):
        RecurrentTextEncoder(nn.Embedding(V, 5), PAD, directions="up")  # pyright: ignore[reportArgumentType]


# -- encoders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("directions", ["forward", "backward", "both"])
def test_padding_does_not_reach_the_encoder(cell, directions) -> None:
    encoder = randomized(RecurrentTextEncoder(nn.Embedding(V, 5), PAD, cell, 6, 2, directions))
    rows = [texts()[i, :length] for i, length in enumerate((6, 3, 4))]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    with torch.no_grad():
        encoder.embedding.weight[PAD] = torch.nan
    found = encoder(F.pad(padded, (0, 2), value=PAD))
    assert found.shape == (3, encoder.out_features)
    for row, alone in zip(found, rows, strict=True):
        torch.testing.assert_close(row, encoder(alone.unsqueeze(0))[0])


def test_the_encoder_gives_the_last_state_of_torch() -> None:
    encoder = randomized(RecurrentTextEncoder(nn.Embedding(V, 5), PAD, "lstm", 6, 2))
    _, (h, c) = torchs(encoder.reader.readers[0])(encoder.embedding(texts()))
    torch.testing.assert_close(encoder(texts()), torch.cat([h[-1], c[-1]], -1))


def test_the_decoder_is_torchs_from_the_state_that_z_makes() -> None:
    decoder = recurrent(cell="gru", latent_into="state")
    start = decoder.start(latents())
    h, _ = torchs(decoder.units)(decoder.embedding(texts()), start.unsqueeze(0))
    torch.testing.assert_close(
        logits(decoder, latents(), texts()), F.linear(h, decoder.output.weight, decoder.output.bias)
    )

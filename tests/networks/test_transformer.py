"""Stacks of blocks from configured parts: against torch's own encoder, with caches, and what does not fit."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from attelbo.attention import NoPosition
from attelbo.errors import ConfigError
from attelbo.networks import AttentionParts, TokenEmbedding, Transformer

PACKAGE = "attelbo.attention"


def parts(**attention) -> AttentionParts:
    return AttentionParts(
        attention={"_target_": f"{PACKAGE}.MultiHeadAttention", "heads": 2, **attention},
        score={"_target_": f"{PACKAGE}.ScaledDot"},
        normalizer={"_target_": f"{PACKAGE}.Softmax"},
        position={"_target_": f"{PACKAGE}.NoPosition"},
    )


def stack(**options) -> Transformer:
    torch.manual_seed(0)
    return Transformer(8, parts(), NoPosition(), **{"layers": 2, "hidden": 16, **options}).double()


def test_equals_torchs_encoder() -> None:
    ours = stack(activation="relu", residual="post_norm")
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True, dtype=torch.float64)
    theirs = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    for block, other in zip(ours.blocks, theirs.layers, strict=True):
        other.self_attn.in_proj_weight = block.attention.qkv.weight
        other.self_attn.in_proj_bias = block.attention.qkv.bias
        other.self_attn.out_proj = block.attention.output
        other.linear1, other.linear2 = block.feed_forward.first, block.feed_forward.second
        other.norm1, other.norm2 = block.around_attention.norm, block.around_feed_forward.norm
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))


def test_no_token_sees_those_behind_it() -> None:
    ours = stack(causal=True)
    x = torch.randn(1, 5, 8, dtype=torch.float64, requires_grad=True)
    for t in range(5):
        (gradient,) = torch.autograd.grad(ours(x)[0, t, 0], x)
        assert (gradient[0, t + 1 :] == 0).all()
        assert (gradient[0, : t + 1].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("residual", ["pre_norm", "post_norm", "sandwich_norm", "deepnorm"])
def test_tokens_in_half_precision_round_no_gradient_more_than_others(residual: str) -> None:
    """Under autocast an embedding of patches makes such tokens; sums of many branches would be rounded each time."""
    ours, x = stack(residual=residual, layers=8).float(), torch.randn(4, 12, 8).bfloat16()
    parameters = list(ours.parameters())

    def gradients(x: torch.Tensor, *, autocast: bool) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = ours(x).float()
        found = torch.autograd.grad((output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum(), parameters)
        return torch.cat([gradient.flatten() for gradient in found])

    exact = gradients(x.float(), autocast=False)
    error, budget = ((gradients(each, autocast=True) - exact).norm() for each in (x, x.float()))
    assert error < 1.2 * budget
    assert ours.bfloat16()(x).dtype == torch.bfloat16


def test_decoding_with_caches_equals_all_at_once() -> None:
    ours = stack(causal=True, cross=True)
    x, memory = torch.randn(2, 6, 8, dtype=torch.float64), torch.randn(2, 3, 8, dtype=torch.float64)
    caches = ours.caches(6)
    steps = [ours(token, memory, caches=caches) for token in x.split(1, 1)]
    torch.testing.assert_close(torch.cat(steps, 1), ours(x, memory))


def test_a_memory_is_seen_whole_and_by_layers_of_the_same_depth() -> None:
    chosen = replace(
        parts(_target_=f"{PACKAGE}.DifferentialAttention"),
        mask={"_target_": f"{PACKAGE}.SlidingWindow", "width": 2},
    )
    blocks = Transformer(8, chosen, NoPosition(), causal=True, cross=True, layers=2).blocks
    assert all(block.attention.mask is not None and block.cross.mask is None for block in blocks)
    assert [block.cross.lambda_init for block in blocks] == [block.attention.lambda_init for block in blocks]
    assert blocks[0].cross.lambda_init < blocks[1].cross.lambda_init


def test_tokens_become_scaled_vectors() -> None:
    embedding = TokenEmbedding(7, 4, NoPosition(), scale=2.0)
    tokens = torch.tensor([[1, 6, 1]])
    torch.testing.assert_close(embedding(tokens), 2 * embedding.vectors.weight[tokens])


def test_what_does_not_fit_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"model\.attention: heads must divide the 8 features .* got 3"):
        Transformer(8, parts(heads=3), NoPosition())
    with pytest.raises(ValueError, match="layers must be at least 1, got 0"):
        stack(layers=0)


LINEAR = {"_target_": f"{PACKAGE}.LinearAttention", "heads": 2}


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (
            {"score": {"_target_": f"{PACKAGE}.Dot"}},
            r"model/score: .*LinearAttention takes none; ~model/score does",
        ),
        ({"mask": {"_target_": f"{PACKAGE}.Block", "size": 2}}, "model/mask: .*LinearAttention takes none"),
        (
            {"position": {"_target_": f"{PACKAGE}.Rotary"}},
            "model/position: .*LinearAttention ignores the encoding of queries, keys and scores by Rotary",
        ),
    ],
)
def test_what_an_attention_would_ignore_is_refused(others, message) -> None:
    given = {"score": None, "normalizer": None, "position": {"_target_": f"{PACKAGE}.NoPosition"}, **others}
    made = AttentionParts(attention=LINEAR, **given)
    with pytest.raises(ConfigError, match=message):
        made.layer(8, made.position_of(8, 4))

"""Transformer blocks against torch's own on shared weights, and decoding with a cache against all at once."""

from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from attelbo.attention import BlockCache, Causal, FeedForward, KeyValueCache, MultiHeadAttention, Padding, norm_layer
from attelbo.attention import TransformerBlock as Block
from attelbo.attention.blocks import FeedForwardActivation
from attelbo.attention.norms import NormName


def block(*, cross: bool = False, **options: Any) -> Block:
    torch.manual_seed(0)
    activation = options.pop("activation", "relu")
    made = Block(
        MultiHeadAttention(8, 2),
        FeedForward(8, 16, activation),
        cross=MultiHeadAttention(8, 2) if cross else None,
        **options,
    ).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made


def copy_attention(ours: MultiHeadAttention, theirs: nn.MultiheadAttention) -> None:
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.output.weight,
            "out_proj.bias": ours.output.bias,
        }
    )


@pytest.mark.parametrize("residual", ["pre_norm", "post_norm"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_equals_torchs_encoder_layer(residual: str, activation: Any) -> None:
    ours = block(residual=residual, activation=activation)
    theirs = nn.TransformerEncoderLayer(
        8, 2, 16, 0.0, activation, batch_first=True, norm_first=residual == "pre_norm", dtype=torch.float64
    )
    copy_attention(ours.attention, theirs.self_attn)
    theirs.linear1.load_state_dict(ours.feed_forward.first.state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward.second.state_dict())
    theirs.norm1.load_state_dict(ours.around_attention.norm.state_dict())
    theirs.norm2.load_state_dict(ours.around_feed_forward.norm.state_dict())
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    valid = torch.tensor([5, 2, 4])[:, None] > torch.arange(5)
    torch.testing.assert_close(ours(x, mask=Padding(valid)), theirs(x, src_key_padding_mask=~valid))


@pytest.mark.parametrize("residual", ["pre_norm", "post_norm"])
def test_equals_torchs_decoder_layer(residual: str) -> None:
    ours = block(residual=residual, cross=True)
    theirs = nn.TransformerDecoderLayer(
        8, 2, 16, 0.0, batch_first=True, norm_first=residual == "pre_norm", dtype=torch.float64
    )
    assert ours.cross is not None
    assert ours.around_cross is not None
    copy_attention(ours.attention, theirs.self_attn)
    copy_attention(ours.cross, theirs.multihead_attn)
    theirs.linear1.load_state_dict(ours.feed_forward.first.state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward.second.state_dict())
    around = (ours.around_attention, ours.around_cross, ours.around_feed_forward)
    for name, residual_ in zip(("norm1", "norm2", "norm3"), around, strict=True):
        getattr(theirs, name).load_state_dict(residual_.norm.state_dict())
    x, memory = torch.randn(3, 5, 8, dtype=torch.float64), torch.randn(3, 4, 8, dtype=torch.float64)
    valid = torch.tensor([4, 2, 3])[:, None] > torch.arange(4)
    behind = torch.ones(5, 5, dtype=torch.bool).triu(1)
    expected = theirs(x, memory, tgt_mask=behind, memory_key_padding_mask=~valid)
    torch.testing.assert_close(ours(x, memory, mask=Causal(), memory_mask=Padding(valid)), expected)


@pytest.mark.parametrize("cross", [False, True])
def test_decoding_with_a_cache_equals_all_at_once(cross: bool) -> None:
    ours = block(cross=cross, norm="rms", activation="swiglu")
    x, memory = torch.randn(2, 6, 8, dtype=torch.float64), torch.randn(2, 3, 8, dtype=torch.float64)
    seen: Tensor | None = memory if cross else None
    expected = ours(x, seen, mask=Causal())
    cache = BlockCache(KeyValueCache(6))
    parts = [ours(part, seen, mask=Causal(), cache=cache) for part in x.split(1, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), expected)
    assert (cache.memory is not None) == cross  # projected once


@pytest.mark.parametrize("chosen", [[2, 2, 0], [1], [0, 0, 2, 1]], ids=str)
def test_a_reordered_cache_goes_on_with_other_rows(chosen: list[int]) -> None:
    ours = block(cross=True)
    x, memory = torch.randn(3, 4, 8, dtype=torch.float64), torch.randn(3, 3, 8, dtype=torch.float64)
    rows = torch.tensor(chosen)
    cache = BlockCache(KeyValueCache(4))
    ours(x[:, :3], memory, mask=Causal(), cache=cache)
    cache.reorder(rows)
    new = torch.randn(len(rows), 1, 8, dtype=torch.float64)
    last = ours(new, memory[rows], mask=Causal(), cache=cache)
    mixed = torch.cat([x[rows, :3], new], 1)
    torch.testing.assert_close(last, ours(mixed, memory[rows], mask=Causal())[:, 3:])


GATES = {
    "swiglu": lambda g: g / (1 + (-g).exp()),
    "geglu": lambda g: g * torch.distributions.Normal(0.0, 1.0).cdf(g),
    "reglu": lambda g: g * (g > 0),
}
ACTIVATIONS = {
    "relu": lambda h: h * (h > 0),
    "relu2": lambda h: h * h * (h > 0),
    "gelu": lambda h: h * torch.distributions.Normal(0.0, 1.0).cdf(h),
}


def test_feed_forward_kinds_are_their_formulas() -> None:
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    assert {*GATES, *ACTIVATIONS} == {*get_args(FeedForwardActivation)}
    for name, opened in GATES.items():
        ours = block(activation=name).feed_forward
        value, gate = ours.first(x).split(16, -1)
        torch.testing.assert_close(ours(x), ours.second(value * opened(gate)))
    for name, activated in ACTIVATIONS.items():
        ours = block(activation=name).feed_forward
        torch.testing.assert_close(ours(x), ours.second(activated(ours.first(x))))


NORMS = {
    "layer": lambda x, n: (
        (x - x.mean(-1, True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() * n.weight + n.bias
    ),
    "rms": lambda x, n: x / (x.square().mean(-1, True) + torch.finfo(x.dtype).eps).sqrt() * n.weight,
    "scale": lambda x, n: n.length * x / x.square().sum(-1, True).sqrt(),
    "dynamic_tanh": lambda x, n: n.weight * (2 / (1 + (-2 * n.slope * x).exp()) - 1) + n.bias,
}


@pytest.mark.parametrize("name", get_args(NormName))
def test_norms_are_their_formulas(name: NormName) -> None:
    norm, x = block(norm=name).around_attention.norm, torch.randn(2, 3, 8, dtype=torch.float64)
    torch.testing.assert_close(norm(x), NORMS[name](x, norm))


@pytest.mark.parametrize("name", ["layer", "rms", "scale"])
def test_norms_begin_with_tokens_of_length_sqrt_e(name: NormName) -> None:
    x = norm_layer(name, 512)(7 * torch.randn(4, 512))
    torch.testing.assert_close(x.norm(dim=-1), torch.full((4,), 512**0.5), rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", get_args(NormName))
def test_norms_of_nothing_and_of_half_precision_are_numbers(name: NormName) -> None:
    norm = norm_layer(name, 8)
    x = torch.zeros(1, 8, requires_grad=True)
    norm(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    large = 300 * torch.ones(1, 8, dtype=torch.float16)  # the sum of their squares is none in this precision
    assert norm.half()(large).isfinite().all()


@pytest.mark.parametrize("name", get_args(NormName))
def test_norms_of_half_precision_under_autocast_are_silent(name: NormName, recwarn: pytest.WarningsRecorder) -> None:
    torch.set_warn_always(True)  # torch would not say it a second time
    try:
        with torch.autocast("cpu", torch.bfloat16):
            norm_layer(name, 8)(torch.randn(2, 8).bfloat16())
    finally:
        torch.set_warn_always(False)
    assert not recwarn.list


@pytest.mark.parametrize("residual", ["pre_norm", "post_norm"])
def test_half_of_a_network_on_either_side_of_attention(residual: str) -> None:
    ours, x = block(residual=residual, macaron=True), torch.randn(2, 3, 8, dtype=torch.float64)
    assert ours.before is not None
    assert ours.around_before is not None

    def added(around: Any, x: Tensor, made: Any) -> Tensor:
        return x + made(around.norm(x)) if residual == "pre_norm" else around.norm(x + made(x))

    def of(network: FeedForward) -> Any:
        return lambda x: network.second(network.first(x).relu()) / 2

    expected = added(ours.around_before, x, of(ours.before))
    expected = added(ours.around_attention, expected, lambda x: ours.attention(x, mask=Causal()))
    expected = added(ours.around_feed_forward, expected, of(ours.feed_forward))
    torch.testing.assert_close(ours(x, mask=Causal()), expected)
    ours(x, mask=Causal()).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in ours.parameters())


def test_both_halves_have_weights_of_their_own() -> None:
    made = Block(MultiHeadAttention(8, 2), FeedForward(8, 16), macaron=True)
    assert made.before is not None
    assert not torch.equal(made.before.first.weight, made.feed_forward.first.weight)
    assert [layer.out_features for layer in made.residual_outputs()] == [8, 8, 8]
    made.reset_parameters(0.5)
    for each in made.feed_forwards():
        assert not each.second.bias.any()
        assert each.second.weight.std().item() == pytest.approx(0.5 * (2 / (8 + 16)) ** 0.5, rel=0.3)


@pytest.mark.parametrize("norm", get_args(NormName))
def test_every_parameter_gets_a_gradient(norm: NormName) -> None:
    ours = block(cross=True, norm=norm)
    x, memory = torch.randn(2, 3, 8, dtype=torch.float64), torch.randn(2, 4, 8, dtype=torch.float64)
    ours(x, memory, mask=Causal()).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in ours.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: block(macaron=True, residual="deepnorm"), "macaron must be false with residual=deepnorm"),
        (lambda: block(norm="batch"), "norm must be layer or rms or scale or dynamic_tanh, got 'batch'"),
        (lambda: FeedForward(4, 0), "hidden must be at least 1, got 0"),
        (lambda: FeedForward(4, 4, "tanh"), "activation must be relu or .* or swiglu, got 'tanh'"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_bad_arguments(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()

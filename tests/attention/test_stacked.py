"""Attention that hands something on from layer to layer: each stack against its formula, cached, recorded and fused."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from attention_contract import TRAINABLE
from torch import Tensor, nn

from attelbo.attention import (
    Alibi,
    Causal,
    Document,
    NoPosition,
    Position,
    ResidualScoreAttention,
    Rotary,
    ValueResidualAttention,
    record_attention,
)
from attelbo.errors import ConfigError
from attelbo.networks import AttentionParts, Transformer

PACKAGE = "attelbo.attention"
DIM, HEADS, LAYERS, LENGTH = 8, 2, 3, 6
KINDS = ["ValueResidualAttention", "ResidualScoreAttention"]
POSITIONS = {"none": NoPosition, "rotary": lambda: Rotary(DIM // HEADS, LENGTH), "alibi": lambda: Alibi(HEADS)}
DOCUMENTS = Document(torch.tensor([[0] * LENGTH, [0, 0, 1, 1, 1, 1]]))


def parts(kind: str, **attention: Any) -> AttentionParts:
    return AttentionParts(
        attention={"_target_": f"{PACKAGE}.{kind}", "heads": HEADS, **attention},
        score={"_target_": f"{PACKAGE}.ScaledDot"},
        normalizer={"_target_": f"{PACKAGE}.Softmax"},
        position={"_target_": f"{PACKAGE}.NoPosition"},
    )


def stack(kind: str, position: Position | None = None, cross: bool = False, **attention: Any) -> Transformer:
    """In float64, with nothing in it zero."""
    torch.manual_seed(0)
    made = Transformer(
        DIM, parts(kind, **attention), position or NoPosition(), causal=True, cross=cross, layers=LAYERS, hidden=8
    ).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made


def tokens(n: int = LENGTH, seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(2, n, DIM, dtype=torch.float64)


def by_hand(network: Transformer, x: Tensor) -> Tensor:
    """The stack as the papers write it: values of the first layer, or scores of the layer before, are kept."""
    first, before = None, torch.zeros((), dtype=torch.float64)
    allowed = (Causal() & DOCUMENTS).dense(LENGTH, LENGTH, device=None)
    for block in network.blocks:
        layer = block.attention
        parts_ = layer.qkv(block.around_attention.norm(x)).split(layer.widths, -1)
        q, k, v = (part.unflatten(-1, (-1, DIM // HEADS)).transpose(1, 2) for part in parts_)
        q, k = network.position.at_query_key(q, k)
        k, v = (part.repeat_interleave(HEADS // part.shape[1], 1) for part in (k, v))
        scores = q @ k.mT / (DIM // HEADS) ** 0.5
        if isinstance(layer, ResidualScoreAttention):
            scores = before = scores + before
        elif first is None:
            first = v
        else:
            v = layer.shares[0] * first + layer.shares[1] * v
        if network.position.has_bias:
            places = torch.arange(LENGTH)
            scores = scores + network.position.bias(torch.arange(HEADS)[:, None, None], places[:, None], places)
        heads = scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ v
        x = x + layer.output(heads.transpose(1, 2).flatten(2))
        x = x + block.feed_forward(block.around_feed_forward.norm(x))
    return network.norm(x)


@pytest.mark.parametrize("kernel", TRAINABLE)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kernel_computes_what_the_papers_write(kind: str, kv_heads: int, position: str, kernel: str) -> None:
    network, x = stack(kind, POSITIONS[position](), kv_heads=kv_heads, kernel=kernel), tokens()
    torch.testing.assert_close(network(x, mask=DOCUMENTS), by_hand(network, x))


@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_is_another_than_without(kind: str) -> None:
    network, x = stack(kind), tokens()
    plain = Transformer(DIM, parts("MultiHeadAttention"), NoPosition(), causal=True, layers=LAYERS, hidden=8).double()
    own = {name: value for name, value in network.state_dict().items() if not name.endswith("shares")}
    plain.load_state_dict(own)
    assert not torch.allclose(network(x), plain(x))
    if kind == "ValueResidualAttention":
        for block in network.blocks[1:]:
            block.attention.shares.data.copy_(torch.tensor([0.0, 1.0]))
    else:
        plain.load_state_dict(own)
        for model in (network, plain):  # the scores of all layers but the last are zero
            for block in model.blocks[:-1]:
                for each in block.attention.qkv.parameters():
                    each.data[:DIM] = 0
    torch.testing.assert_close(network(x), plain(x))


@pytest.mark.parametrize("steps", [(1,) * LENGTH, (3, 1, 2)])
@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_decoding_with_caches_equals_all_at_once(kind: str, kv_heads: int, cross: bool, steps: tuple[int, ...]) -> None:
    network = stack(kind, Rotary(DIM // HEADS, LENGTH), cross, kv_heads=kv_heads)
    x, memory = tokens(), tokens(4, 2) if cross else None
    caches = network.caches(LENGTH)
    said = [network(part, memory, mask=DOCUMENTS, caches=caches) for part in x.split(steps, 1)]
    torch.testing.assert_close(torch.cat(said, 1), network(x, memory, mask=DOCUMENTS))


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient_and_no_token_sees_those_behind(kind: str, cross: bool) -> None:
    network, x = stack(kind, cross=cross), tokens().requires_grad_()
    said = network(x, tokens(4, 2) if cross else None)
    (seen,) = torch.autograd.grad(said[:, 2].sum(), x, retain_graph=True)
    assert (seen[:, 3:] == 0).all()
    assert (seen[:, :3] != 0).all()
    said.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@pytest.mark.parametrize("rows", [None, slice(1, 2), torch.tensor([1])])
@pytest.mark.parametrize("kind", KINDS)
def test_recorded_maps_are_those_it_computed_with(kind: str, rows: slice | Tensor | None) -> None:
    network, x, seen = stack(kind, kernel="eager"), tokens(), []
    for block in network.blocks:
        kernel = block.attention.attend

        def attend(q: Tensor, k: Tensor, v: Tensor, mask: Any, layer=block.attention, kernel=kernel) -> Tensor:
            seen.append(layer.attention_weights(q, k, mask))
            return kernel(q, k, v, mask)

        block.attention.attend = attend
    expected = network(x, mask=DOCUMENTS)
    with record_attention(network, rows=rows) as maps:
        assert torch.equal(network(x, mask=DOCUMENTS), expected)
    assert len(maps) == LAYERS
    for recorded, own in zip(maps.values(), seen[:LAYERS], strict=True):
        torch.testing.assert_close(recorded, own if rows is None else own[rows])


def test_factors_begin_at_a_half_and_the_first_layer_and_a_memory_have_none() -> None:
    network = Transformer(DIM, parts("ValueResidualAttention"), NoPosition(), causal=True, cross=True, layers=LAYERS)
    first, *others = network.blocks
    assert first.attention.shares is None
    assert all(block.attention.shares.tolist() == [0.5, 0.5] for block in others)
    assert all(block.cross.shares is None for block in network.blocks)


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(ValueError, match=r"handed: a layer that follows others .* got none"):
        ValueResidualAttention(DIM, HEADS, follows=True)(tokens().float())
    chosen = replace(parts("ResidualScoreAttention"), score={"_target_": f"{PACKAGE}.Additive"})
    with pytest.raises(ConfigError, match="residual attention has sums of scores in a dot product, which Additive is"):
        chosen.layer(DIM, NoPosition())

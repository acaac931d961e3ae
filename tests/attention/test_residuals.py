"""Residuals against their formulas, what they are at the start, and rows that are left out."""

import itertools
import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attelbo.attention import HyperConnection, NoPosition, Residual
from attelbo.attention.hyper_connections import ResidualName
from attelbo.attention.residuals import ResidualForm, deepnorm_constants
from attelbo.networks import AttentionParts, Transformer
from attelbo.networks.transformer import initialize_by_depth

FORMS: tuple[ResidualForm, ...] = get_args(ResidualForm)
NAMES: tuple[ResidualName, ...] = get_args(ResidualName)
DIM = 6


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normed(x: Tensor, norm: nn.Module) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias


FORMULAS = {
    "pre_norm": lambda x, f, r: x + r.factor * f(normed(x, r.norm)),
    "post_norm": lambda x, f, r: normed(x + r.factor * f(x), r.norm),
    "sandwich_norm": lambda x, f, r: x + r.factor * normed(f(normed(x, r.norm)), r.norm_of_added),
    "deepnorm": lambda x, f, r: normed(1.7 * x + r.factor * f(x), r.norm),
    "rezero": lambda x, f, r: x + r.factor * f(x),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scaled", [True, False])
def test_is_its_formula(form: ResidualForm, scaled: bool) -> None:
    options = {"alpha": 1.7} if form == "deepnorm" else {}
    ours = Residual(DIM, form, layer_scale=0.1 if scaled and form != "rezero" else None, **options).double()
    for i, parameter in enumerate(ours.parameters()):
        parameter.data = normal(*parameter.shape, seed=i)
    if ours.factor is None:
        ours.factor = nn.Parameter(torch.ones((), dtype=torch.float64), requires_grad=False)
    layer, x = nn.Linear(DIM, DIM).double(), normal(2, 3, DIM)
    torch.testing.assert_close(ours(x, layer), FORMULAS[form](x, layer, ours))


def stack(form: ResidualName, *, dim: int = 8, **options) -> Transformer:
    torch.manual_seed(0)
    attention = {"_target_": "attelbo.attention.MultiHeadAttention", "heads": 2}
    parts = AttentionParts(attention, score=None, normalizer=None, position={})
    return Transformer(dim, parts, NoPosition(), residual=form, **{"layers": 3, **options}).double()


def test_rezero_is_the_identity_at_the_start_and_learns() -> None:
    ours, x = stack("rezero"), normal(2, 5, 8)
    assert torch.equal(ours(x), ours.norm(x))
    ours.norm = nn.Identity()
    assert torch.equal(ours(x), x)
    (ours(x) * normal(2, 5, 8, seed=1)).sum().backward()
    factors = [parameter for name, parameter in ours.named_parameters() if name.endswith("factor")]
    assert len(factors) == 6
    assert all(parameter.grad is not None and parameter.grad != 0 for parameter in factors)
    assert not any(isinstance(module, nn.LayerNorm) for module in ours.modules())


def test_layer_scale_begins_near_the_identity() -> None:
    ours, plain, x = stack("pre_norm", layer_scale=1e-6), stack("pre_norm"), normal(2, 5, 8)
    ours.norm = plain.norm = nn.Identity()
    assert 0 < (ours(x) - x).abs().max() < 1e-4 < (plain(x) - x).abs().max()


def test_layer_scale_may_be_a_whole_number() -> None:
    """``model.network.layer_scale=1`` on the command line is an int; parameters are not."""
    x = normal(2, 5, 8)
    assert torch.equal(stack("pre_norm", layer_scale=1)(x), stack("pre_norm")(x))


@pytest.mark.parametrize("form", NAMES)
def test_decoding_with_caches_equals_all_at_once_and_all_learn(form: ResidualName) -> None:
    ours = stack(form, causal=True, cross=True, layer_scale=None if form == "rezero" else 0.3)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.3 * normal(*parameter.shape, seed=parameter.numel()))
    x, memory = normal(2, 6, 8), normal(2, 3, 8, seed=1)
    expected, caches = ours(x, memory), ours.caches(6)
    steps = [ours(token, memory, caches=caches) for token in x.split(1, 1)]
    torch.testing.assert_close(torch.cat(steps, 1), expected)
    expected.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in ours.parameters())


def test_deepnorms_constants_are_those_of_the_papers_figure() -> None:
    assert deepnorm_constants(18) == pytest.approx((math.sqrt(6), 1 / math.sqrt(12)))
    assert deepnorm_constants(27, cross=True) == pytest.approx((3, 1 / math.sqrt(18)))
    assert deepnorm_constants(8, decoder_layers=16) == pytest.approx((1.62, 0.435))


@pytest.mark.parametrize("as_language_model", [False, True])
def test_deepnorm_begins_with_small_values_and_outputs(as_language_model: bool) -> None:
    dim, beta = 64, 24 ** (-1 / 4)
    ours = stack("deepnorm", dim=dim, hidden=128)
    if as_language_model:
        initialize_by_depth(ours, ours)
    for block in ours.blocks:
        query, key, value = block.attention.qkv.weight.chunk(3)
        small = [
            value,
            block.attention.output.weight,
            block.feed_forward.first.weight,
            block.feed_forward.second.weight,
        ]
        for weight, gain in ((query, 1), (key, 1), *((weight, beta) for weight in small)):
            std = gain * math.sqrt(2 / sum(weight.shape))  # Glorot & Bengio 2010, eq. 12
            assert weight.std().item() == pytest.approx(std, rel=0.03)
            assert weight.abs().max() <= math.sqrt(3) * std + 1e-6


def test_deepnorm_in_a_stack_multiplies_what_it_adds_to() -> None:
    ours, x = stack("deepnorm", layers=2), normal(2, 5, 8)
    expected = x
    for block in ours.blocks:
        for layer in (block.attention, block.feed_forward):
            expected = F.layer_norm(4 ** (1 / 4) * expected + layer(expected), (8,))
    torch.testing.assert_close(ours(x), expected)


def test_rows_that_are_left_out_change_no_mean() -> None:
    n, drop = 20_000, 0.3
    ours = Residual(DIM, "rezero", drop=drop)
    ours.factor = nn.Parameter(torch.ones(()))
    torch.manual_seed(0)
    added = ours(torch.zeros(n, 2, DIM), lambda x: x + 1)
    of_rows = added[:, 0, 0]
    assert torch.equal(added, of_rows[:, None, None].expand_as(added)), "a row is left out as a whole"
    torch.testing.assert_close(of_rows.unique(), torch.tensor([0.0, 1 / (1 - drop)]))
    standard_error = math.sqrt(drop / (1 - drop) / n)
    assert abs(of_rows.mean().item() - 1) < 4 * standard_error
    assert torch.equal(ours.eval()(torch.zeros(1, 2, DIM), lambda x: x + 1), torch.ones(1, 2, DIM))


def test_deeper_layers_are_left_out_more_often_and_none_in_evaluation() -> None:
    ours, plain, x = stack("pre_norm", drop_path=0.3).eval(), stack("pre_norm").eval(), normal(4, 5, 8)
    assert torch.equal(ours(x), plain(x))
    rates = [(block.around_attention.drop, block.around_feed_forward.drop) for block in ours.blocks]
    assert rates == [(pytest.approx(rate), pytest.approx(rate)) for rate in (0.1, 0.2, 0.3)]
    assert not torch.equal(ours.train()(x), plain(x))


def connection(dynamic: bool, streams: int = 3) -> HyperConnection:
    made = HyperConnection(DIM, streams, dynamic).double()
    for i, parameter in enumerate(made.parameters()):
        parameter.data = normal(*parameter.shape, seed=i)
    return made


@pytest.mark.parametrize("dynamic", [False, True])
def test_hyper_connections_are_their_formula(dynamic: bool) -> None:
    """Each token by itself, as eqs. 1, 2 and 10-13 of the paper have it, with the matrices of eq. 1."""
    n, ours, layer, x = 3, connection(dynamic), nn.Linear(DIM, DIM).double(), normal(3, 2, 4, DIM)
    found = ours(x, layer)
    for b, t in itertools.product(range(2), range(4)):
        streams = x[:, b, t]  # H, (n, E)
        read, mix, write = ours.width.view(n, n + 1)[:, 0], ours.width.view(n, n + 1)[:, 1:], ours.depth
        if dynamic:
            centred = streams - streams.mean(-1, keepdim=True)
            said = torch.tanh(centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() @ ours.of_token)
            read, mix = read + ours.scales[0] * said[:, 0], mix + ours.scales[0] * said[:, 1 : n + 1]
            write = write + ours.scales[1] * said[:, n + 1]
        added = layer(normed(read @ streams, ours.norm))
        torch.testing.assert_close(found[:, b, t], mix.T @ streams + torch.outer(write, added))


@pytest.mark.parametrize("options", [{}, {"macaron": True}, {"cross": True}, {"cross": True, "macaron": True}])
def test_layers_begin_with_one_stream_after_the_other(options: dict) -> None:
    ours, read = stack("hyper", streams=7, **options), list[int]()

    def note(connection: HyperConnection, *_: object) -> None:
        read.append(int(connection.width.view(7, -1)[:, 0].argmax()))

    for module in ours.modules():
        if isinstance(module, HyperConnection):
            module.register_forward_hook(note)
    ours(normal(1, 2, 8), normal(1, 3, 8))
    assert read == [k % 7 for k in range(len(read))]
    assert len(read) == 3 * (2 + len(options))


@pytest.mark.parametrize("form", ["hyper", "dynamic_hyper"])
@pytest.mark.parametrize("options", [{}, {"streams": 1}, {"causal": True, "macaron": True, "layer_scale": 0.1}])
def test_hyper_connections_begin_as_the_residual_network_and_then_tell_streams_apart(
    form: ResidualName, options: dict
) -> None:
    ours, plain, x = stack(form, **options), stack("pre_norm", **{**options, "streams": 4}), normal(2, 5, 8)
    torch.testing.assert_close(ours(x), plain(x))
    (ours(x) * normal(2, 5, 8, seed=1)).sum().backward()
    connections = [each for block in ours.blocks for each in block.connections()]
    n = options.get("streams", 4)
    assert [int(each.width.view(n, -1)[:, 0].argmax()) for each in connections] == [
        k % n for k in range(len(connections))
    ]
    written = connections[0].depth.grad
    assert written is not None
    assert len(written.unique()) == n, "streams that are the same but for who reads them learn different things"


@pytest.mark.parametrize("form", ["hyper", "dynamic_hyper"])
def test_an_optimizer_does_not_shrink_what_is_the_identity(form: ResidualName) -> None:
    ours = stack(form)
    shrunk = {name.rsplit(".", 1)[1] for name, p in ours.named_parameters() if p.ndim >= 2 and ".around" in name}
    assert shrunk == ({"of_token"} if form == "dynamic_hyper" else set())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "none"}, "residual must be pre_norm or .* or rezero, got 'none'"),
        ({"form": "rezero", "layer_scale": 0.1}, "layer_scale must be null where residual=rezero"),
        ({"layer_scale": 0.0}, "layer_scale must be positive and finite, got 0.0"),
        ({"drop": 1.0}, r"drop_path must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_arguments(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Residual(DIM, **options)


@pytest.mark.parametrize("bias", [True, False])
def test_norms_of_hyper_connections_have_biases_if_asked(bias: bool) -> None:
    assert (HyperConnection(DIM, 2, bias=bias).norm.bias is not None) == bias


def test_bad_connections() -> None:
    with pytest.raises(ValueError, match=r"residual must be pre_norm or .* or hyper or dynamic_hyper, got 'none'"):
        stack("none")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="streams must be at least 1, got 0"):
        stack("hyper", streams=0)

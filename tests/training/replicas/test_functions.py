"""Noise inside vmap: every replica draws exactly what it would draw alone."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.training.replicas.functions import HostStreams, NotStackableError, Replicated, Streams

N = 3
CPU = torch.device("cpu")


def seeded(replica: int) -> None:
    """A stream of which something has been drawn already, as a minibatch's pixels are before the losses."""
    torch.default_generator.manual_seed(replica)
    torch.rand(7)


def streams() -> Streams:
    made = HostStreams(N)
    for replica in range(N):
        seeded(replica)
        made.keep(replica)
    return made


def together(function, x: Tensor) -> Tensor:
    with Replicated(streams()):
        return torch.vmap(function, randomness="error")(x)


def alone(function, x: Tensor) -> Tensor:
    values = []
    for replica in range(N):
        seeded(replica)
        values.append(function(x[replica]))
    return torch.stack(values)


DRAWS = {
    "randn": lambda x: torch.randn(x.shape) + x,
    "rand, keywords": lambda x: torch.rand(size=(4, 5), dtype=torch.float64) + x,
    "randint": lambda x: torch.randint(0, 9, (4, 5)) + x,
    "randperm": lambda x: x[:, torch.randperm(5)],
    "randn_like": lambda x: torch.randn_like(x) * x,
    "rand_like": lambda x: torch.rand_like(x) * x,
    "bernoulli of what differs": lambda x: torch.bernoulli(x.sigmoid()),
    "method bernoulli": lambda x: x.sigmoid().bernoulli(),
    "normal of what differs": lambda x: torch.normal(x, x.abs()),
    "multinomial of what differs": lambda x: torch.multinomial(x.softmax(-1), 2).double(),
    "filled": lambda x: torch.empty(4, 5).normal_() + x,
    "filled, with numbers": lambda x: torch.empty_like(x).normal_(3.0, 0.1),
    "filled in place": lambda x: torch.empty_like(x).exponential_().log(),
    "dropout": lambda x: F.dropout(x, 0.3),
    "dropout, a layer": lambda x: torch.nn.Dropout(0.5)(x),
    "torch.distributions": lambda x: torch.distributions.Normal(x, 1 + x.abs()).rsample(),
    "gamma": lambda x: torch._standard_gamma(1 + x.abs()),
    "clamped in place": lambda x: torch.rand_like(x).add_(x).clamp_(min=0.2),
    "two draws": lambda x: torch.randn(3) @ torch.rand(3) + x,
}


@pytest.mark.parametrize("name", DRAWS)
def test_each_replica_draws_what_it_would_alone(name):
    x = torch.randn(N, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(together(DRAWS[name], x), alone(DRAWS[name], x), rtol=1e-12, atol=1e-12)


def test_dropout_outside_training_draws_nothing():
    x = torch.ones(N, 4, 5)
    assert torch.equal(together(lambda x: F.dropout(x, 0.5, training=False), x), x)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: F.alpha_dropout(x, 0.5, True), "alpha_dropout"),
        (lambda x: F.gumbel_softmax(x), "gumbel_softmax"),
        (lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5), "scaled_dot_product_attention"),
        (lambda x: F.scaled_dot_product_attention(*[x[None]] * 3, dropout_p=0.5), "scaled_dot_product_attention"),
        (lambda x: torch.empty(3, dtype=torch.int64).random_(), "random_"),
        (lambda x: torch.randn(3, generator=torch.Generator()), "randn"),
        (lambda x: torch.vmap(lambda row: row + torch.randn(5), randomness="different")(x), "randn"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_noise_that_cannot_be_told_apart_is_refused_by_name(function, name):
    with pytest.raises(NotStackableError, match=name):
        together(function, torch.ones(N, 4, 5))


def test_what_is_left_behind_by_filling_is_not_mistaken_for_noise():
    def fills_and_reads(x):
        noise = torch.empty(5)
        noise.normal_()
        return x + noise

    assert together(fills_and_reads, torch.ones(N, 4, 5)).isnan().all()


@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 5), (5,)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers(shape, bias):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, *shape, dtype=torch.float64, generator=generator)
    w = torch.randn(N, 7, 5, dtype=torch.float64, generator=generator)
    b = torch.randn(N, 7, dtype=torch.float64, generator=generator)

    def layer(x, w, b):
        return F.linear(x, w, b if bias else None)

    with Replicated(streams()):
        stacked = torch.vmap(layer, randomness="error")(x, w, b)
        shared = torch.vmap(layer, in_dims=(None, 0, 0), randomness="error")(x[0], w, b)
        other = torch.vmap(layer, in_dims=(1, 0, 0), randomness="error")(x.transpose(0, 1), w, b)
    torch.testing.assert_close(stacked, torch.stack([layer(*each) for each in zip(x, w, b, strict=True)]))
    torch.testing.assert_close(shared, torch.stack([layer(x[0], *each) for each in zip(w, b, strict=True)]))
    torch.testing.assert_close(other, stacked)


@pytest.mark.parametrize("rows", ["none", "one for all", "one for each replica", "one for each row", "each"])
@pytest.mark.parametrize("kind", [torch.bool, torch.float64])
def test_attention_with_a_mask(rows, kind):
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, N, 2, 4, 5, 6, dtype=torch.float64, generator=generator)
    shape = {"one for all": (1, 5, 5), "one for each replica": (N, 4, 5, 5), "one for each row": (2, 1, 5, 5)}
    mask = torch.randn(shape.get(rows, (N, 2, 1, 5, 5)), dtype=torch.float64, generator=generator)
    mask = None if rows == "none" else mask > -1 if kind == torch.bool else mask.requires_grad_()

    def attend(q, k, v, mask):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    own = rows in ("one for each replica", "each")
    with Replicated(streams()):
        stacked = torch.vmap(attend, in_dims=(0, 0, 0, 0 if own else None), randomness="error")(q, k, v, mask)
    each = [attend(q[i], k[i], v[i], mask[i] if own and mask is not None else mask) for i in range(N)]
    torch.testing.assert_close(stacked, torch.stack(each))
    if mask is not None and mask.requires_grad:
        (gradient,) = torch.autograd.grad(stacked.square().sum(), mask)
        (expected,) = torch.autograd.grad(torch.stack(each).square().sum(), mask)
        torch.testing.assert_close(gradient, expected)

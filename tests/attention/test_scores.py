"""Every score against its formula written for one pair, and what all of them have in common."""

import math
from collections.abc import Callable

import pytest
import torch
from attention_contract import HEAD_DIM, HEADS, MAX_LENGTH, build_part, names, normal
from torch import Tensor

from attelbo.attention import Additive, Cosine, DotProductScore, General, Location
from attelbo.attention.scores import Score

FORMULAS: dict[str, Callable[..., Tensor]] = {
    "additive": lambda score, n, s, q, k: (
        score.direction[n, :, 0] @ torch.tanh(score.query_weight[n].T @ q + score.key_weight[n].T @ k)
    ),
    "concat": lambda score, n, s, q, k: score.direction[n, :, 0] @ torch.tanh(score.weight[n].T @ torch.cat([q, k])),
    "cosine": lambda score, n, s, q, k: score.gain * (q @ k) / (q.norm() * k.norm()),
    "dot": lambda score, n, s, q, k: q @ k,
    "general": lambda score, n, s, q, k: q @ score.weight[n] @ k,
    "l2": lambda score, n, s, q, k: -(q - k).square().sum() / math.sqrt(HEAD_DIM),
    "location": lambda score, n, s, q, k: score.weight[n, :, s] @ q,
    "scaled_dot": lambda score, n, s, q, k: q @ k / math.sqrt(HEAD_DIM),
}


@pytest.mark.parametrize("name", names("score"))
def test_is_its_formula_for_each_pair(name: str) -> None:
    score = build_part("score", name)
    q, k = normal(2, HEADS, 3, HEAD_DIM), normal(2, HEADS, 5, HEAD_DIM, seed=1)
    scores = score(q, k)
    assert scores.shape == (2, HEADS, 3, 5)
    for b, n, t, s in torch.cartesian_prod(*map(torch.arange, scores.shape)).tolist():
        expected = FORMULAS[name](score, n, s, q[b, n, t], k[b, n, s])
        torch.testing.assert_close(scores[b, n, t, s], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", names("score"))
def test_keys_that_are_prepared_once_give_the_same(name: str) -> None:
    score = build_part("score", name)
    q, k = normal(2, HEADS, 3, HEAD_DIM), normal(2, HEADS, 5, HEAD_DIM, seed=1)
    torch.testing.assert_close(score.compare(score.at_query(q), score.at_key(k)), score(q, k))


@pytest.mark.parametrize("name", names("score"))
def test_gradients_by_finite_differences_reach_every_parameter(name: str) -> None:
    score = build_part("score", name)
    q, k = normal(1, HEADS, 2, HEAD_DIM).requires_grad_(), normal(1, HEADS, 3, HEAD_DIM, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(score, (q, k))
    torch.sin(score(q, k)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in score.parameters())


def test_a_dot_product_is_one_of_what_it_makes_of_query_and_key() -> None:
    found = set()
    for name in names("score"):
        score = build_part("score", name)
        if isinstance(score, DotProductScore):
            found.add(name)
            q, k = normal(2, HEADS, 3, HEAD_DIM), normal(2, HEADS, 5, HEAD_DIM, seed=1)
            product = torch.einsum("bntd,bnsd->bnts", score.at_query(q), score.at_key(k))
            torch.testing.assert_close(score(q, k), score.scale * product)
    assert found == {"cosine", "dot", "general", "l2", "scaled_dot"}


def test_a_cosine_takes_a_whole_number() -> None:
    assert Cosine(scale=10).gain.tolist() == 10.0


def test_a_cosine_does_not_grow_with_its_vectors() -> None:
    score = Cosine(5.0, learned=False).double()
    q, k = normal(1, 1, 3, 4), normal(1, 1, 5, 4, seed=1)
    assert not list(score.parameters())
    torch.testing.assert_close(score(1e3 * q, 1e-3 * k), score(q, k))
    assert score(q, k).abs().max() <= 5
    torch.testing.assert_close(score(q, q).diagonal(dim1=-2, dim2=-1), torch.full((1, 1, 3), 5.0, dtype=torch.float64))


class _Summed(Score):
    """Of each query one number, which would serve all of its keys alike."""

    def compare(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return query.sum(-1, keepdim=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Additive(2, 4, hidden=0), "hidden must be at least 1, got 0"),
        (lambda: Cosine(0.0), "scale must be positive and finite, got 0.0"),
        (lambda: Cosine(math.nan), "scale must be positive and finite, got nan"),
        (lambda: General(2, 4, scale=math.inf), "scale must be positive and finite, got inf"),
        (lambda: Location(2, 4, max_length=None), "location scores need max_length"),
        (lambda: Location(2, 4, max_length=0), "max_length must be at least 1, got 0"),
        (
            lambda: Location(HEADS, HEAD_DIM, MAX_LENGTH)(
                torch.ones(1, HEADS, 2, HEAD_DIM), torch.ones(1, HEADS, 17, 4)
            ),
            "location scores know 16 places, got 17 keys",
        ),
        (
            lambda: _Summed()(torch.ones(1, HEADS, 2, HEAD_DIM), torch.ones(1, HEADS, 3, HEAD_DIM)),
            r"score: _Summed.compare must give .* here \(1, \d, 2, 3\), got \(1, \d, 2, 1\)",
        ),
    ],
)
def test_bad_arguments(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()

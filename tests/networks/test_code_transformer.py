"""The transformer prior beyond the table of code priors: classes, its cache, the first tokens."""

from typing import Any

import pytest
import torch
from torch import Tensor

from attelbo.latent.priors import autoregressive
from attelbo.latent.spaces import Codes, ScaledCodes
from attelbo.networks import AutoregressiveTransformer, NextScaleTransformer, code_transformer
from enumerated_codes import assert_distributed, every_code

SPACE = Codes((2, 2), 3)
CLASSES = 4


def prior(space: Codes = SPACE, **settings: bool) -> AutoregressiveTransformer:
    torch.manual_seed(0)
    part = AutoregressiveTransformer(space, CLASSES, dim=8, heads=2, layers=2, **settings).double().eval()
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.normal_(std=0.8)
    return part


def labels(n: int) -> Tensor:
    return torch.eye(CLASSES, dtype=torch.float64)[torch.arange(n) % CLASSES]


@pytest.mark.parametrize("space", [SPACE, Codes((2, 1, 2), 2, n_codebooks=2)], ids=["map", "residual"])
@torch.no_grad()
def test_the_probabilities_of_each_class_sum_to_one_and_those_of_all_are_their_mixture(space: Codes) -> None:
    p, codes = prior(space, class_conditional=True), every_code(space)
    n = len(codes)
    of_class = p.given(labels(CLASSES)).log_prob(codes.unsqueeze(1).expand(n, CLASSES, *space.shape)).exp()  # (n, Y)
    torch.testing.assert_close(of_class.sum(0), torch.ones(CLASSES, dtype=torch.float64))
    assert (of_class.std(1) > 0).any()
    torch.testing.assert_close(p.log_prob(codes.unsqueeze(0))[0].exp(), of_class.mean(1))


@torch.no_grad()
def test_samples_of_a_class_have_its_probabilities() -> None:
    p, n = prior(class_conditional=True), 4_000
    y = labels(2).repeat(n, 1)
    codes = p.given(y).sample(2 * n)
    assert codes.shape == (2 * n, 2, 2)
    for label in range(2):
        expected = p.given(labels(CLASSES)[label : label + 1]).log_prob(every_code(SPACE).unsqueeze(1))[:, 0].exp()
        assert_distributed(codes[label::2], SPACE, expected)


@pytest.mark.parametrize("axial_rotary", [False, True])
@torch.no_grad()
def test_what_is_said_one_by_one_with_a_cache_is_what_is_said_at_once(axial_rotary: bool, monkeypatch) -> None:
    p = prior(Codes((3, 4), 5), axial_rotary=axial_rotary, class_conditional=True)
    said: list[Tensor] = []

    def listening(logits: Tensor) -> Tensor:
        said.append(logits)
        return autoregressive.draw(logits)

    monkeypatch.setattr(code_transformer, "draw", listening)
    start = labels(6) @ p.start
    codes = p.sample_after(start)
    assert len(said) == 12
    torch.testing.assert_close(torch.stack(said, 1), p.logits_after(start, codes.flatten(1)))


@torch.no_grad()
def test_rotary_tells_rows_and_columns_apart() -> None:
    plain, turned = prior(), prior(axial_rotary=True)
    turned.load_state_dict(plain.state_dict())
    codes = torch.randint(3, (1, 5, 2, 2))
    assert not torch.allclose(plain.log_prob(codes), turned.log_prob(codes))


def test_labels_are_known_where_they_are_asked_for() -> None:
    assert prior(class_conditional=True).knows_labels
    plain = prior()
    assert not plain.knows_labels
    assert plain.given(labels(3)) is plain
    assert plain.start.shape == (1, 8)


@pytest.mark.parametrize(
    ("kind", "space"),
    [(AutoregressiveTransformer, SPACE), (NextScaleTransformer, ScaledCodes.of(((1, 1), (2, 2)), 3))],
)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"heads": 3}, "heads must divide the 8 features"),
        ({"class_conditional": True}, "class_conditional takes data with classes, and these have none"),
    ],
)
def test_out_of_range(kind: Any, space: Codes, settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(space, **{"dim": 8, "heads": 2, "layers": 1, **settings})

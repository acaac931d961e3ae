"""The prior that predicts codes a scale at a time: probabilities by enumeration, what sees what, samples."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.latent.priors.autoregressive import draw
from attelbo.latent.pyramid import Size
from attelbo.latent.spaces import ScaledCodes
from attelbo.networks import NextScaleTransformer, next_scale_transformer
from enumerated_codes import assert_distributed, every_code

CLASSES = 3
SPACES = {
    "two scales": ScaledCodes.of(((1, 1), (2, 2)), 3),
    "three of one row": ScaledCodes.of(((1, 1), (1, 2), (1, 3)), 2),
    "more than one place at first": ScaledCodes.of(((1, 2), (2, 2)), 2),
    "one scale": ScaledCodes.of(((2, 2),), 3),
}
spaces = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def prior(space: ScaledCodes, class_conditional: bool = False) -> NextScaleTransformer:
    torch.manual_seed(0)
    part = NextScaleTransformer(space, CLASSES, dim=8, heads=2, layers=2, class_conditional=class_conditional)
    part = part.double().eval()
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.normal_(std=0.8)
    return part


@spaces
@torch.no_grad()
def test_probabilities_sum_to_one_also_those_of_a_class(space: ScaledCodes) -> None:
    codes = every_code(space)
    log_prob = prior(space).log_prob(codes.unsqueeze(0))
    assert log_prob.shape == (1, len(codes))
    assert float(log_prob.exp().sum()) == pytest.approx(1, rel=1e-12)
    assert len(log_prob.unique()) > 1
    p = prior(space, class_conditional=True)
    labels = torch.eye(CLASSES, dtype=torch.float64)
    of_class = p.given(labels).log_prob(codes.unsqueeze(1).expand(-1, CLASSES, -1)).exp()
    torch.testing.assert_close(of_class.sum(0), torch.ones(CLASSES, dtype=torch.float64))
    torch.testing.assert_close(p.log_prob(codes.unsqueeze(0))[0].exp(), of_class.mean(1))
    assert (of_class.std(1) > 0).any()


@spaces
@torch.no_grad()
def test_samples_have_the_probabilities(space: ScaledCodes) -> None:
    n, p, codes = 5_000, prior(space, class_conditional=True), every_code(space)
    label = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    drawn = p.given(label.expand(n, -1)).sample(n)
    assert drawn.shape == (n, *space.shape)
    expected = p.given(label.unsqueeze(0)).log_prob(codes.unsqueeze(1))[:, 0].exp()
    assert_distributed(drawn, space, expected)
    assert p.sample(4).shape == (4, *space.shape)


@spaces
@torch.no_grad()
def test_a_code_has_influence_on_finer_scales_and_no_others(space: ScaledCodes) -> None:
    p, scale_of = prior(space), [k for k, size in enumerate(space.sizes) for _ in range(math.prod(size))]
    codes = torch.randint(space.n_codes, (1, len(scale_of)))
    before = p.logits(codes)
    for place, scale in enumerate(scale_of):
        changed = codes.clone()
        changed[0, place] = (codes[0, place] + 1) % space.n_codes
        moved = (p.logits(changed) != before).any(-1)[0]
        assert moved.tolist() == [other > scale for other in scale_of]


@torch.no_grad()
def test_a_scale_is_predicted_from_the_resized_sum_of_those_before_it() -> None:
    """The tokens that enter the transformer, by torch's own resizing of images."""
    sizes: tuple[Size, ...] = ((1, 1), (2, 2), (3, 3), (4, 4))
    p = prior(ScaledCodes.of(sizes, 5), class_conditional=True)
    entered: list[Tensor] = []
    p.network.register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0]))
    codes, start = torch.randint(5, (6, 30)), p.start[[0, 1, 2, 0, 1, 2]]
    p.logits_after(start, codes)
    total, expected, first = torch.zeros(6, 8, 4, 4, dtype=torch.float64), [start.unsqueeze(1)], 0
    for size, finer in itertools.pairwise(sizes):
        own = p.code[codes[:, first : first + math.prod(size)]].mT.unflatten(2, size)
        total = total + F.interpolate(own, (4, 4), mode="bicubic")
        expected.append(F.interpolate(total, finer, mode="area").flatten(2).mT)
        first += math.prod(size)
    torch.testing.assert_close(entered[0], torch.cat(expected, 1) + p.position, rtol=1e-5, atol=1e-5)


@spaces
@torch.no_grad()
def test_sampling_computes_each_scale_once_as_if_all_were_known(
    space: ScaledCodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    p, lengths = prior(space), [math.prod(size) for size in space.sizes]
    entered: list[int] = []
    p.network.register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0].shape[1]))
    seen: list[Tensor] = []

    def watched(logits: Tensor) -> Tensor:
        seen.append(logits.unflatten(0, (5, -1)))
        return draw(logits)

    monkeypatch.setattr(next_scale_transformer, "draw", watched)
    codes = p.sample(5)
    assert entered == lengths
    torch.testing.assert_close(torch.cat(seen, 1), p.logits(codes))


def test_every_parameter_is_trained() -> None:
    p = prior(SPACES["two scales"], class_conditional=True)
    p.log_prob(torch.randint(3, (1, 200, 5))).sum().backward()
    for parameter in p.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0

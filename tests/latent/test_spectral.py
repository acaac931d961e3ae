"""Spectral normalization against singular values."""

import pytest
import torch
from torch import nn

from attelbo.latent.spectral import SpectralNorm, normalize_spectrally


def largest(weight: torch.Tensor, dim: int = 0) -> float:
    return float(torch.linalg.svdvals(weight.movedim(dim, 0).flatten(1))[0])


@pytest.mark.parametrize(
    "layer", [nn.Linear(7, 5), nn.Conv2d(3, 6, 3), nn.ConvTranspose2d(3, 6, 3)], ids=lambda layer: type(layer).__name__
)
def test_the_largest_singular_value_comes_to_be_one(layer: nn.Module) -> None:
    torch.manual_seed(0)
    layer = layer.double()
    with torch.no_grad():
        layer.weight.normal_()
    dim = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    expected = layer.weight.detach() / largest(layer.weight.detach(), dim)
    normalize_spectrally(layer)
    for _ in range(300):
        weight = layer.weight
    torch.testing.assert_close(weight, expected, rtol=1e-6, atol=1e-8)
    assert largest(weight.detach(), dim) == pytest.approx(1, rel=1e-6)


def test_a_weight_below_one_and_one_of_zeros_stay_what_they_are() -> None:
    for weight in (torch.eye(3) * 0.5, torch.zeros(3, 4)):
        assert torch.equal(SpectralNorm(weight)(weight), weight)


def test_a_weight_that_begins_at_zero_is_found_when_it_grows() -> None:
    torch.manual_seed(0)
    norm = SpectralNorm(torch.zeros(4, 4))
    norm(torch.zeros(4, 4))
    weight = torch.diag(torch.tensor([5.0, 1.0, 0.5, 0.1]))
    for _ in range(30):
        found = norm(weight)
    torch.testing.assert_close(found, weight / 5)


def test_evaluation_leaves_the_estimate_alone() -> None:
    norm = SpectralNorm(torch.randn(4, 4)).eval()
    before = norm.u.clone()
    norm(torch.randn(4, 4))
    assert torch.equal(norm.u, before)
    norm.train()(torch.randn(4, 4))
    assert not torch.equal(norm.u, before)


def test_gradients_know_of_sigma() -> None:
    torch.manual_seed(0)
    weight = 3 * torch.randn(4, 3, dtype=torch.float64)
    norm = SpectralNorm(weight)
    for _ in range(300):  # u and v do not depend on the weight any more, as the analytic gradient has it
        norm(weight)
    assert torch.autograd.gradcheck(norm.eval(), (weight.requires_grad_(),))


def test_what_is_left_out() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    for _ in range(2):
        normalize_spectrally(network, but=network[2])
    assert [name for name, _ in network.named_parameters()] == [
        *("0.bias", "0.parametrizations.weight.original", "2.weight", "2.bias"),
    ]

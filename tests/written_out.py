"""For models that tests write out a second time: the same weights, the same noise, and both gradients."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributions as D

from attelbo.data.batch import Batch
from attelbo.models.base import Model

SHARED: dict[str, Any] = {
    "objective": {"_target_": "attelbo.latent.objectives.ELBO"},
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-3},
    "scheduler": {"_target_": "attelbo.models.schedulers.Constant"},
}
BERNOULLI = {"likelihood": {"_target_": "attelbo.latent.likelihoods.Bernoulli"}}
MLPS = {
    "encoder": {"_target_": "attelbo.networks.MLPEncoder", "hidden": [6]},
    "decoder": {"_target_": "attelbo.networks.MLPDecoder", "hidden": [6]},
}


def moved(model: Model) -> Any:
    """In float64, away from the initialization, where zeros would hide what depends on them, and not so far that a log
    std is clamped."""
    model = model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.train()


def images(n: int, shape: tuple[int, int, int] = (1, 5, 4)) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64).round()


def check(model: Model, batch: Batch, written_out: Callable[[], Tensor], tolerance: float = 1e-7) -> None:
    """Both losses, from the same seed, and their gradients; constants of a model are of float32 where ``tolerance`` is
    larger."""
    parameters = dict(model.named_parameters())
    losses, gradients = [], []
    for loss_of in (lambda: model.losses(batch)["loss"], written_out):
        torch.manual_seed(11)
        losses.append(loss_of())
        gradients.append(torch.autograd.grad(losses[-1], list(parameters.values())))
    torch.testing.assert_close(losses[0], losses[1], rtol=tolerance, atol=tolerance)
    for name, ours, other in zip(parameters, *gradients, strict=True):
        assert ours.abs().sum() > 0, name
        # What moves all slots alike has a gradient of zero, but for rounding.
        error = (ours - other).abs().max() / (other.abs().max() + 1e-8)
        assert error < tolerance, f"{name}: a gradient differs by {error:.1e} of its largest part"


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def linears(module: nn.Module) -> Iterator[nn.Linear]:
    return (layer for layer in module.modules() if isinstance(layer, nn.Linear))


def perceptron(module: nn.Module, x: Tensor, function: Callable[[Tensor], Tensor], last: bool = False) -> Tensor:
    """Its linear layers in turn, each with a function of its output; of the last one only if said so."""
    layers = list(linears(module))
    for place, layer in enumerate(layers):
        x = x @ layer.weight.T + layer.bias
        x = function(x) if last or place < len(layers) - 1 else x
    return x


def kl(mean: Tensor, std: Tensor, p: D.Normal | None = None) -> Tensor:
    """Summed over all but the first dimension."""
    of_prior = D.Normal(torch.zeros_like(mean), torch.ones_like(std)) if p is None else p
    return D.kl_divergence(D.Normal(mean, std), of_prior).flatten(1).sum(1)


def normed(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    centered = x - x.mean(-1, keepdim=True)
    return centered / (centered.square().mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias

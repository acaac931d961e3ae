"""A model of each kind that knows labels on data so small that every distribution is known in closed form.

Encoder and decoder are linear, so x given its label is normal: log p(x|y) = N(x; W m_y + b_y, W S_y W^T + s^2 I), with
p(z|y) = N(m_y, S_y).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributions as D

from attelbo.data.batch import DataSpec
from attelbo.models import ConditionalVAE, SemiSupervisedVAE, build_conditional_vae, build_m2

CLASSES, STD = 3, 0.7
DATA = DataSpec("toys", (1, 2, 2), "levels", CLASSES)
LINEAR: dict[str, Any] = {
    "encoder": {"_target_": "attelbo.networks.MLPEncoder", "hidden": []},
    "decoder": {"_target_": "attelbo.networks.MLPDecoder", "hidden": []},
    "posterior": {"_target_": "attelbo.latent.DiagonalNormalPosterior"},
    "prior": {"_target_": "attelbo.latent.ClassConditionalNormal"},
    "likelihood": {"_target_": "attelbo.latent.Normal", "calibration": "fixed", "scale": STD},
    "objective": {"_target_": "attelbo.latent.ELBO"},
    "latent_dim": 2,
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-3},
    "scheduler": {"_target_": "attelbo.models.schedulers.Constant"},
}


def conditional(data: DataSpec = DATA, **changes: Any) -> ConditionalVAE:
    return _ready(build_conditional_vae(data, **(LINEAR | changes)))


def semi_supervised(data: DataSpec = DATA, **changes: Any) -> SemiSupervisedVAE:
    return _ready(build_m2(data, **(LINEAR | changes)))


def _ready(model: Any) -> Any:
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    # Wider than the true posterior, or importance weights would have no variance to tell an error by.
    head = model.posterior.head
    nn.init.zeros_(head.weight[2:])
    nn.init.constant_(head.bias[2:], 0.2)
    return model.double().eval()


def rows(n: int = 4) -> Tensor:
    return torch.rand(n, *DATA.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def log_evidence(model: ConditionalVAE, x: Tensor) -> Tensor:
    """log p(x|y) of every class, (B, Y)."""
    weight, bias = model.decoder.output.weight, model.decoder.output.bias  # pyright: ignore[reportAttributeAccessIssue]
    w = weight[:, :2]
    classes = []
    for y in range(CLASSES):
        mean, std = model.prior.means[y], model.prior.log_stds[y].exp()  # pyright: ignore[reportIndexIssue,reportArgumentType]
        covariance = (w * std.square()) @ w.T + STD**2 * torch.eye(4, dtype=torch.float64)
        normal = D.MultivariateNormal(w @ mean + bias + weight[:, 2 + y], covariance)
        classes.append(normal.log_prob(x.flatten(1)))
    return torch.stack(classes, -1).detach()

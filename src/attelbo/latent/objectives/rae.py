"""Regularized autoencoders (Ghosh, Sajjadi, Vergari, Black & Schoelkopf 2020, "From Variational to Deterministic
Autoencoders", arXiv:1903.12436, eq. 11).

Shapes: B batch, E event shape of z, (C, ...) data shape.
"""

from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from attelbo.checks import check_choice, check_not_negative
from attelbo.latent.arithmetic import full_precision, sum_event
from attelbo.latent.distributions import Point
from attelbo.latent.evidence import Evidence, Generative
from attelbo.latent.objectives.base import Objective, generative_of
from attelbo.latent.spectral import normalize_spectrally

Regularization = Literal["none", "l2", "gradient_penalty", "spectral"]


class RAE(Objective):
    """loss = mean_b(-log p(x|z)) + z_weight * mean_b(|z|^2 / 2) + weight * R, z the point that the encoder gives.

    R keeps the decoder smooth, in place of the noise that a VAE adds to its input:
      - ``none``: 0. With z_weight 0 as well, the plain autoencoder;
      - ``l2``: the sum of squares of the decoder's parameters;
      - ``gradient_penalty``: |J|^2, the squared Frobenius norm of the Jacobian of E[x|z], averaged over the batch;
      - ``spectral``: 0, but every layer of the decoder but the last is normalized spectrally
        (``attelbo.latent.spectral``).

    The reconstruction is that of the likelihood, in nats: with a normal of fixed std, the squared error of the paper
    divided by 2 std^2. |J|^2 is estimated without bias by E|J^T v|^2 with one v ~ N(0, I) for each x; the authors'
    code takes the gradient of the sum of the squared outputs, which is a different quantity.

    Args:
        regularization: R.
        weight: of R.
        z_weight: beta of the paper.

    Raises:
        ValueError: a negative or infinite weight, or an unknown regularization.
    """

    n_samples = 1
    needs_generative = True
    needs_eta = True
    needs_density = False
    watched = "loss"
    posteriors = (Point,)

    def __init__(
        self,
        regularization: Regularization = "l2",
        weight: float = 1e-3,
        z_weight: float = 0.1,
    ) -> None:
        super().__init__()
        check_choice("regularization", regularization, Regularization)
        check_not_negative(weight=weight, z_weight=z_weight)
        self.regularization = regularization
        self.weight = weight
        self.z_weight = z_weight

    def attach(self, generative: Generative) -> None:
        if self.regularization == "spectral":
            normalize_spectrally(generative.decoder, but=generative.decoder.get_submodule("output"))

    def forward(self, evidence: Evidence) -> Tensor:
        loss = evidence.distortion + self.z_weight * 0.5 * sum_event(evidence.z.square(), 2).mean()
        if self.regularization == "l2":
            loss = loss + self.weight * _squares(generative_of(evidence))
        elif self.regularization == "gradient_penalty":
            loss = loss + self.weight * _squared_jacobian(generative_of(evidence), evidence.z, evidence.y)
        return loss


def _squares(generative: Generative) -> Tensor:
    """The sum of squares of the decoder's parameters, a scalar."""
    return torch.stack([full_precision(p).square().sum() for p in generative.decoder.parameters()]).sum()


def _squared_jacobian(generative: Generative, z: Tensor, y: Tensor | None) -> Tensor:
    """An unbiased estimate of the batch mean of |d E[x|z] / d z|^2, a scalar, of z (1, B, *E) and y (B,)."""
    # Fused attention has no second derivative, torch's plain one has. Evaluation keeps no graph: here one is needed.
    evaluating = torch.is_inference_mode_enabled()
    with sdpa_kernel(SDPBackend.MATH), torch.inference_mode(False) if evaluating else nullcontext():
        z = z.clone() if evaluating else z
        x, pull, *_ = torch.func.vjp(lambda z: generative.likelihood.mean(generative.decode(z, y)), z)
        (gradient,) = pull(torch.randn_like(x))
    return sum_event(gradient.square(), 2).mean()

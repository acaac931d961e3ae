"""The Poincare ball of curvature -c, in coordinates without the loss of precision near its border.

In float32 the ball |w| < 1 / sqrt(c) ends at a distance of about 17 / sqrt(c) from its origin, and long before that
points that are far apart become indistinguishable. Here a point is therefore written as its logarithmic map at the
origin, scaled so that |z| is its distance from there: z may be any real numbers, and ``to_ball`` gives w. The
exponential map at mu of a tangent vector that has been carried there from the origin, exp_mu(v / lambda_mu) = mu (+)
to_ball(v), with Moebius addition and the conformal factor lambda_mu = 2 / (1 - c |mu|^2), is ``translate`` (Mathieu et
al. 2019, "Continuous Hierarchical Representations with Poincare Variational Auto-Encoders", arXiv:1901.06033, sec. 2;
Ungar 2008, "A Gyrovector Space Approach to Hyperbolic Geometry", for the addition).

With x = tanh(a / 2), y = tanh(b / 2) along the two vectors, a and b their lengths times sqrt(c), and s = x + y,

    sinh(r / 2) = |s| cosh(a / 2) cosh(b / 2),    direction |s|^2 x + s / cosh(a / 2)^2

are the length (times sqrt(c)) and the direction of the sum: the usual formula without its clamps at the border.

Shapes: (..., D) points, (...) lengths.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.latent.arithmetic import log_sinhc

_LOG_LARGE = 40.0
"""Where log sinh(r / 2) is above it, r / 2 = log sinh(r / 2) + log 2 to all digits."""


def translate(by: Tensor, z: Tensor, curvature: float) -> Tensor:
    """``by`` (+) z: the point that z becomes under the translation along a geodesic that takes the origin to ``by``.

    An isometry that takes the origin to ``by``; ``translate(-by, ...)`` is its inverse.
    """
    root = math.sqrt(curvature)
    a, b = (length(v) * root for v in (by, z))
    x, y = by * (root * _half_tanh_over(a)).unsqueeze(-1), z * (root * _half_tanh_over(b)).unsqueeze(-1)
    s = x + y
    square = _positive(s.square().sum(-1))
    log_cosh = _log_cosh_half(a)
    log_sinh = 0.5 * square.log() + log_cosh + _log_cosh_half(b)
    r = 2 * (log_sinh.clamp(max=_LOG_LARGE).exp().asinh() + F.relu(log_sinh - _LOG_LARGE))
    direction = square.unsqueeze(-1) * x + (-2 * log_cosh).exp().unsqueeze(-1) * s
    return direction * (r / (root * length(direction))).unsqueeze(-1)


def distance(z: Tensor, other: Tensor, curvature: float) -> Tensor:
    """The length of the geodesic between two points, (...)."""
    return length(translate(-z, other, curvature))


def to_ball(z: Tensor, curvature: float) -> Tensor:
    """The point of the ball |w| < 1 / sqrt(c): tanh(sqrt(c) |z| / 2) / sqrt(c) along z."""
    return z * _half_tanh_over(math.sqrt(curvature) * length(z)).unsqueeze(-1)


def log_volume(z: Tensor, curvature: float) -> Tensor:
    """The log density of the hyperbolic volume with respect to that of the coordinates at z, (...): (D - 1) log(sinh r
    / r), r = sqrt(c) |z|."""
    return (z.shape[-1] - 1) * log_sinhc(math.sqrt(curvature) * length(z))


def length(z: Tensor) -> Tensor:
    """|z|, (...), with a finite gradient at 0."""
    return _positive(z.square().sum(-1)).sqrt()


def _positive(square: Tensor) -> Tensor:
    return square + torch.finfo(square.dtype).tiny


def _half_tanh_over(r: Tensor) -> Tensor:
    """tanh(r / 2) / r."""
    return (r / 2).tanh() / r


def _log_cosh_half(r: Tensor) -> Tensor:
    """log cosh(r / 2)."""
    return r / 2 + (-r).exp().log1p() - math.log(2)

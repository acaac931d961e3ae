"""A KL without a closed form, estimated with less noise in training.

    KL(q || p) = E_q[log q(z) - log p(z)] = E_q[log q(z) - log p(z) - c control],   E_q[control] = 0

The noise of log p(z) makes the encoder less informative: on the digits it costs a plain VAE two nats. Where p is near
the standard normal, log q(z) - log N(z; 0, I), whose mean is known, varies as the ratio does: its deviation from that
mean is the control (``Distribution.rsample_for_kl``). Where p has moved away it would add noise instead; hence the
coefficient c, that of a regression over the minibatch, between 0 and 1 (Lavenberg & Welch 1981, "A Perspective on the
Use of Control Variables to Increase the Efficiency of Monte Carlo Simulations", section 2). Fitted to the samples that
it is applied to, c biases the estimate by O(1 / rows): evaluation does not use it, so that it reports a true bound.

Shapes: K samples, B batch.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Reference(NamedTuple):
    """log q(z) - log N(z; 0, I) of samples, or a similar statistic, and its expectation."""

    sampled: Tensor
    """(K, B), nats."""
    expected: Tensor
    """(B,), nats."""

    @property
    def control(self) -> Tensor:
        """(K, B): zero in expectation, as is its gradient."""
        return self.sampled - self.expected


def with_less_noise(log_ratio: Tensor, reference: Reference) -> Tensor:
    """log q(z) - log p(z), (K, B), less the control times a coefficient fitted to the minibatch."""
    control = reference.control
    with torch.no_grad():
        # Rows also differ in their expectations, which is no noise: subtracted where the reference predicts it.
        unexpected = log_ratio - reference.expected
        noise = torch.where(_spread(unexpected) < _spread(log_ratio), unexpected, log_ratio)
        covariance = ((control - control.mean()) * noise).sum()
        coefficient = (covariance / _spread(control).clamp(min=torch.finfo(control.dtype).tiny)).clamp(0, 1)
    return log_ratio - coefficient * control


def _spread(t: Tensor) -> Tensor:
    """The sum of squares about the mean."""
    return (t - t.mean()).square().sum()

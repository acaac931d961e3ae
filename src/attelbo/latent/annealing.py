"""The log-likelihood by annealed importance sampling, which needs no good q(z|x).

Neal 2001, "Annealed importance sampling"; Wu, Burda, Salakhutdinov & Grosse 2017, "On the Quantitative Analysis of
Decoder-Based Generative Models" (arXiv:1611.04273), for VAEs: Hamiltonian transitions, 16 chains, sigmoid temperatures.

    f_t(z) = q(z)^(1 - b_t) p(x, z)^(b_t),  0 = b_0 < .. < b_T = 1
    z_0 ~ q;  t = 1 .. T:  log w += log f_t(z_(t-1)) - log f_(t-1)(z_(t-1)),  z_t by a transition that keeps f_t

The mean of w is p(x) whatever the transitions, so the logarithm of a mean of n of them is, in expectation, a lower
bound on log p(x), as that of importance weights is (T = 1). The paper's chains begin at the prior, 10,000 temperatures
away; here they begin at a normal that is given, and a hundred do (benchmarks/NOTES.md). They move in the coordinates in
which it is N(0, I), with step sizes for each x and temperature that other chains have found.

Shapes: n chains, B batch, E event shape of z.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from attelbo.checks import check_at_least
from attelbo.latent.arithmetic import LOG_2PI, sum_event
from attelbo.latent.distributions import DiagonalNormal

LogJoint = Callable[[Tensor], Tensor]
"""z (n, B, *E) -> log p(x, z), (n, B), nats."""

_PILOTS = 4
"""Chains of a first pass, in which the step sizes are found; weights of chains that adapt have no exact mean."""
_WANTED = 0.65
"""The share of proposals that is accepted where Hamiltonian dynamics is most efficient (Neal 2011, section 5.4.4)."""
_SLOPE = 4.0
"""delta of Wu et al.'s temperatures."""


class AnnealedEstimate(NamedTuple):
    """The estimate of log p(x) from n chains."""

    log_likelihood: Tensor
    """log (1/n sum_i w_i), (B,), float64, nats."""
    acceptance: Tensor
    """The share of proposals that was accepted, (B,)."""


def anneal(
    log_joint: LogJoint, start: DiagonalNormal, n_chains: int = 16, n_temperatures: int = 100, n_leapfrog: int = 2
) -> AnnealedEstimate:
    """Estimate log p(x) by annealing a normal into the posterior.

    Args:
        log_joint: log p(x, z), differentiable by z.
        start: q, where chains begin.
        n_chains: n.
        n_temperatures: T, transitions of each chain.
        n_leapfrog: steps of one transition.

    Raises:
        ValueError: a number below 1.
    """
    check_at_least(1, n_chains=n_chains, n_temperatures=n_temperatures, n_leapfrog=n_leapfrog)
    target = _Whitened(log_joint, start)
    sizes = _run(target, _PILOTS, n_temperatures, n_leapfrog, None).step_sizes
    chains = _run(target, n_chains, n_temperatures, n_leapfrog, sizes)
    return AnnealedEstimate(chains.log_weights.logsumexp(0) - math.log(n_chains), chains.accepted)


class _Whitened:
    """log p(x, z) as a log-density of u, with z = mean + std u."""

    def __init__(self, log_joint: LogJoint, start: DiagonalNormal) -> None:
        self.log_joint = log_joint
        self.mean, self.std = start.mean.detach(), start.std.detach()
        self.log_volume = sum_event(start.log_std.detach(), 1)  # (B,)

    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The log-density of u (n, B, *E), (n, B), nats, and its gradient."""
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            density = self.log_joint(torch.addcmul(self.mean, self.std, u)) + self.log_volume
            (gradient,) = torch.autograd.grad(density.sum(), u)
        return density.detach(), gradient


class _Chains(NamedTuple):
    log_weights: Tensor
    """(n, B), float64."""
    accepted: Tensor
    """(B,)"""
    step_sizes: list[Tensor]
    """Of each transition, (B,)."""


@torch.no_grad()
def _run(target: _Whitened, n: int, n_temperatures: int, n_leapfrog: int, step_sizes: list[Tensor] | None) -> _Chains:
    """Chains with these step sizes, or, without, some that adapt them on their way."""
    like = target.mean
    u = torch.randn((n, *like.shape), dtype=like.dtype, device=like.device)
    log_p, force = target(u)
    log_weights, accepted = torch.zeros_like(log_p, dtype=torch.float64), torch.zeros_like(log_p[0])
    used: list[Tensor] = []
    size = torch.full_like(log_p[0], like[0].numel() ** -0.25)  # (B,), of the order that a normal wants
    inverses = torch.linspace(-_SLOPE, _SLOPE, n_temperatures + 1).sigmoid().double()
    temperatures = ((inverses - inverses[0]) / (inverses[-1] - inverses[0])).tolist()
    for t in range(1, n_temperatures + 1):
        b = temperatures[t]
        log_weights += (b - temperatures[t - 1]) * (log_p - _log_normal(u)).double()
        if step_sizes is not None:
            size = step_sizes[t - 1]
        used.append(size)
        per_row = size.view(-1, *[1] * (like.ndim - 1))  # (B, 1, ..)
        momentum = torch.randn_like(u)
        v, p, log_v, force_v = u, momentum, log_p, force
        for _ in range(n_leapfrog):
            p = p + 0.5 * per_row * (b * force_v - (1 - b) * v)
            v = v + per_row * p
            log_v, force_v = target(v)
            p = p + 0.5 * per_row * (b * force_v - (1 - b) * v)
        before = b * log_p + (1 - b) * _log_normal(u) + _log_normal(momentum)
        after = b * log_v + (1 - b) * _log_normal(v) + _log_normal(p)
        taken = torch.rand_like(log_p).log() < after - before  # false where a trajectory ended in NaN
        moved = taken.view(*taken.shape, *[1] * (like.ndim - 1))
        u, force, log_p = torch.where(moved, v, u), torch.where(moved, force_v, force), torch.where(taken, log_v, log_p)
        share = taken.to(size.dtype).mean(0)
        accepted += share / n_temperatures
        size = size * (0.3 * (share - _WANTED)).exp()
    return _Chains(log_weights, accepted, used)


def _log_normal(u: Tensor) -> Tensor:
    """log N(u; 0, I), (n, B), of u (n, B, *E)."""
    return sum_event(-0.5 * (u.square() + LOG_2PI), 2)

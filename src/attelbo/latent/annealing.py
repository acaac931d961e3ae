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

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from attelbo.checks import check_at_least
from attelbo.latent.arithmetic import LOG_2PI, sum_event
from attelbo.latent.distributions import DiagonalNormal
from attelbo.latent.distributions.hamiltonian import LogJoint

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


class _State(NamedTuple):
    """Where the chains are."""

    u: Tensor
    """(n, B, *E)."""
    log_p: Tensor
    """The log-density of u, (n, B), nats."""
    force: Tensor
    """Its gradient, (n, B, *E)."""

    @property
    def log_q(self) -> Tensor:
        """(n, B)."""
        return _log_normal(self.u)


class _Whitened:
    """log p(x, z) as a log-density of u, with z = mean + std u."""

    def __init__(self, log_joint: LogJoint, start: DiagonalNormal) -> None:
        self.log_joint = log_joint
        self.mean, self.std = start.mean.detach(), start.std.detach()
        self.log_volume = sum_event(start.log_std.detach(), 1)  # (B,)

    def draw(self, n: int) -> Tensor:
        """u of n chains, (n, B, *E), from q."""
        return torch.randn((n, *self.mean.shape), dtype=self.mean.dtype, device=self.mean.device)

    def at(self, u: Tensor) -> _State:
        """The state of chains at u."""
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            density = self.log_joint(torch.addcmul(self.mean, self.std, u)) + self.log_volume
            (gradient,) = torch.autograd.grad(density.sum(), u)
        return _State(u.detach(), density.detach(), gradient)


class _Chains(NamedTuple):
    """What has become of them."""

    log_weights: Tensor
    """(n, B), float64."""
    accepted: Tensor
    """(B,)"""
    step_sizes: list[Tensor]
    """Of each transition, (B,)."""


@torch.no_grad()
def _run(target: _Whitened, n: int, n_temperatures: int, n_leapfrog: int, step_sizes: list[Tensor] | None) -> _Chains:
    """Chains with these step sizes, or, without, some that adapt them on their way."""
    now = target.at(target.draw(n))
    log_weights, accepted = torch.zeros_like(now.log_p, dtype=torch.float64), torch.zeros_like(now.log_p[0])
    size = torch.full_like(accepted, now.u[0, 0].numel() ** -0.25)  # of the order that a normal wants
    used: list[Tensor] = []
    for t, (before, b) in enumerate(itertools.pairwise(_temperatures(n_temperatures))):
        log_weights += (b - before) * (now.log_p - now.log_q).double()
        size = size if step_sizes is None else step_sizes[t]
        now, taken = _move(target, now, b, size, n_leapfrog)
        share = taken.to(size.dtype).mean(0)
        accepted += share / n_temperatures
        used.append(size)
        size = size * (0.3 * (share - _WANTED)).exp()
    return _Chains(log_weights, accepted, used)


def _temperatures(n: int) -> list[float]:
    """b_0 .. b_n."""
    rising = torch.linspace(-_SLOPE, _SLOPE, n + 1, dtype=torch.float64).sigmoid()
    return ((rising - rising[0]) / (rising[-1] - rising[0])).tolist()


def _move(target: _Whitened, now: _State, b: float, size: Tensor, n_leapfrog: int) -> tuple[_State, Tensor]:
    """A Hamiltonian transition (Neal 2011, section 5.3) that leaves q^(1 - b) p^b as it is: the new state, and which
    chains have taken their proposal, (n, B)."""
    events = [1] * (now.u.ndim - 2)
    step = size.view(-1, *events)  # (B, 1, ..)
    momentum = p = target.draw(len(now.u))
    there = now
    for _ in range(n_leapfrog):
        p = p + 0.5 * step * (b * there.force - (1 - b) * there.u)
        there = target.at(there.u + step * p)
        p = p + 0.5 * step * (b * there.force - (1 - b) * there.u)
    gain = b * (there.log_p - now.log_p) + (1 - b) * (there.log_q - now.log_q) + _log_normal(p) - _log_normal(momentum)
    taken = torch.rand_like(gain).log() < gain  # false where a trajectory ended in NaN
    moved = taken.view(*taken.shape, *events)
    return _State(
        torch.where(moved, there.u, now.u),
        torch.where(taken, there.log_p, now.log_p),
        torch.where(moved, there.force, now.force),
    ), taken


def _log_normal(u: Tensor) -> Tensor:
    """log N(u; 0, I), (n, B), of u (n, B, *E)."""
    return sum_event(-0.5 * (u.square() + LOG_2PI), 2)

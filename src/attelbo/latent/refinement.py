"""The best diagonal normal for each x by itself: what an encoder would give at best.

Cremer, Li & Duvenaud 2018, "Inference Suboptimality in Variational Autoencoders" (arXiv:1801.03558), section 3: the gap
between log p(x) and the ELBO is

    log p(x) - L[q]  =  (log p(x) - L[q*])  +  (L[q*] - L[q]),
                        approximation gap      amortization gap

with q* the best member of the family for this x.

Shapes: n samples, B batch, E event shape of z.
"""

import torch
from torch import Tensor

from attelbo.latent.distributions import DiagonalNormal
from attelbo.latent.distributions.hamiltonian import LogJoint

_RATE = 0.05
"""Adam's, in units of the initial std; it falls to 0 linearly."""


def best_normal(log_joint: LogJoint, start: DiagonalNormal, n_steps: int = 300, n_samples: int = 8) -> DiagonalNormal:
    """Ascend the ELBO of each x from where ``start`` is.

    The gradient is that of Roeder, Wu & Duvenaud 2017 ("Sticking the Landing", arXiv:1703.09194), through the samples
    only: it has no noise where q is the posterior.

    Args:
        log_joint: log p(x, z), differentiable by z.
        start: where it begins, such as q(z|x).
        n_steps: of Adam.
        n_samples: n, of each step.
    """
    origin, scale = start.mean.detach(), start.std.detach()
    with torch.enable_grad():
        shift, growth = (torch.zeros_like(origin, requires_grad=True) for _ in range(2))
        optimizer = torch.optim.Adam([shift, growth], lr=_RATE)
        for step in range(n_steps):
            optimizer.param_groups[0]["lr"] = _RATE * (1 - step / n_steps)
            q = DiagonalNormal(origin + scale * shift, scale.log() + growth)
            z = q.rsample(n_samples)
            bound = (log_joint(z) - q.stop_gradient().log_prob(z)).mean(0).sum()
            shift.grad, growth.grad = torch.autograd.grad(-bound, (shift, growth))
            optimizer.step()
    return DiagonalNormal(origin + scale * shift.detach(), scale.log() + growth.detach())


@torch.no_grad()
def bound_of(log_joint: LogJoint, q: DiagonalNormal, n_samples: int) -> Tensor:
    """The ELBO of each x from fresh samples, (B,), nats."""
    z, log_q = q.rsample_with_log_prob(n_samples)
    return (log_joint(z) - log_q).mean(0)

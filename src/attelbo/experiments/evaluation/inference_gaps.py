"""Where the ELBO falls short of log p(x): in the family of q, or in the encoder (Cremer, Li & Duvenaud 2018,
arXiv:1801.03558), and whether the importance-sampled NLL can be trusted.

    log p(x)  -- approximation gap --  L[q*]  -- amortization gap --  L[q]

log p(x) is estimated by annealing from q*, the best diagonal normal for each row by itself, whatever q is: a q that can
do more than q*, such as a flow, may have a negative amortization gap. The paper takes the larger one of an annealed and
an importance-sampled estimate; here only the annealed one is taken, and what importance sampling misses is reported.

Shapes: B batch, S importance samples. Units: nats.
"""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from attelbo.data import ResidentDataModule
from attelbo.data.batch import Batch
from attelbo.data.loader import spread_rows
from attelbo.errors import ConfigError
from attelbo.experiments.evaluation.conditions import Conditions
from attelbo.experiments.evaluation.likelihood import decoded_size
from attelbo.experiments.evaluation.splits import mean_over_rows
from attelbo.experiments.terminal import tracked
from attelbo.latent import DiagonalNormal, anneal, best_normal, estimate_log_likelihood
from attelbo.latent.refinement import bound_of
from attelbo.latent.spaces import Real
from attelbo.metrics import Measure
from attelbo.models import Model, VariationalAutoencoder

MOST_ROWS = 100
N_CHAINS = 16
N_TEMPERATURES = 100
_N_SAMPLES = 100
"""Of a bound, and of the spread of q."""
_PIXELS_ON_CPU, _PIXELS_ON_GPU = 2**21, 2**26
"""Decoded at a time, with their gradients."""


def check_gaps(model: Model, described: str) -> None:
    """Check that the gaps of a model can be measured.

    Raises:
        ConfigError: they cannot.
    """
    if not (
        isinstance(model, VariationalAutoencoder)
        and model.bounded
        and isinstance(model.posterior.space, Real)
        and not model.estimates_prior
    ):
        raise ConfigError(
            f"gaps=true: {described}: annealing here moves latents that are real numbers, with a known p(z) and a bound"
        )
    if model.sums_over_labels:
        raise ConfigError(f"gaps=true: {described}: M2 sums over labels, and annealing here would be given one")


def gap_measures(data: ResidentDataModule, conditions: Conditions) -> tuple[Measure, ...]:
    """The measures of :func:`evaluate_gaps`."""
    n = min(conditions.n_rows(data), MOST_ROWS)
    of = f"{N_CHAINS} chains of {N_TEMPERATURES}, {n} {data.spec.row}s"
    return (
        Measure("annealed_nll", "NLL, annealed", "nats", note=of, better="less"),
        Measure("sampling_gap", "sampling gap", "nats, of these: importance-sampled NLL - annealed NLL"),
        Measure("approximation_gap", "approximation gap", "nats, of these: log p(x) - best diagonal normal's ELBO"),
        Measure("amortization_gap", "amortization gap", "nats, of these: that ELBO - the encoder's"),
    )


def evaluate_gaps(model: VariationalAutoencoder, data: ResidentDataModule, conditions: Conditions) -> dict[str, float]:
    """The annealed NLL and the gaps of at most ``MOST_ROWS`` rows spread over a split, with standard errors."""
    split, device = conditions.split, conditions.device
    rows = spread_rows(min(conditions.n_rows(data), MOST_ROWS), data.n_rows(split), device)
    budget = _PIXELS_ON_CPU if device.type == "cpu" else _PIXELS_ON_GPU
    at_once = max(1, budget // (N_CHAINS * decoded_size(data.spec)))
    found: list[Tensor] = []
    for i, index in enumerate(tracked(rows.split(at_once), "gaps of the bound")):
        conditions.seed_noise("gaps", i)
        with _kernels_with_gradients(model):
            found.append(_gaps(model, data.materialize(index, split), conditions.settings.n_samples))
    results: dict[str, float] = {}
    for measure, values in zip(gap_measures(data, conditions), torch.cat(found, 1).double(), strict=True):
        results |= mean_over_rows(conditions.key(measure.key), values)
    return results


def _kernels_with_gradients(model: VariationalAutoencoder) -> AbstractContextManager[None]:
    """cuDNN's recurrent kernels have no gradient in evaluation."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    return torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()


def _gaps(model: VariationalAutoencoder, batch: Batch, n_samples: int) -> Tensor:
    """Of each row what ``gap_measures`` names, in their order, (4, B)."""
    with torch.no_grad():
        q = model.infer(batch.x, batch.y)
        z = q.rsample(_N_SAMPLES)
        elbo = model.evidence(batch.x, batch.y, N_CHAINS).elbo
    log_joint = model.log_joint(batch.x, batch.y, q)
    best = best_normal(log_joint, DiagonalNormal(q.mean, z.std(0).clamp(min=1e-6).log()))
    bound = torch.stack([bound_of(log_joint, best, N_CHAINS) for _ in range(math.ceil(_N_SAMPLES / N_CHAINS))]).mean(0)
    log_p = anneal(log_joint, best, N_CHAINS, N_TEMPERATURES).log_likelihood
    sampled = estimate_log_likelihood(model.weight_sampler_of(batch), n_samples, N_CHAINS).log_likelihood
    return torch.stack([-log_p, log_p - sampled, log_p - bound, (bound - elbo).double()])

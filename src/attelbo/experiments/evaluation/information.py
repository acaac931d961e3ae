"""Mutual information and aggregate KL of a trained model, where its posterior has a density.

Shapes: B batch, E event shape of z. Units: nats.
"""

import math
import sys

import torch

from attelbo.data import ResidentDataModule
from attelbo.data.loader import spread_rows
from attelbo.experiments.evaluation.conditions import Conditions
from attelbo.experiments.evaluation.splits import mean_over_rows
from attelbo.latent import DiagonalNormal, StandardNormal
from attelbo.latent.spaces import Codes
from attelbo.metrics import Measure, bias_of_few_rows, information_terms, marginal_log_prob
from attelbo.models import Model, VariationalAutoencoder

INFORMATION = (
    Measure("mutual_information", "mutual information", "nats, I(x; z)"),
    Measure("aggregate_kl", "aggregate KL", "nats, KL(q(z) || p(z))"),
    Measure("total_correlation", "total correlation", "nats of the aggregate KL, KL(q(z) || prod_d q(z_d))"),
    Measure("dimension_wise_kl", "dimension-wise KL", "nats of the aggregate KL, sum_d KL(q(z_d) || p(z_d))"),
)
_UNKNOWN = 2.0
"""Nats of bias from which it is not known how large it is: nine tenths of each q(z_n) are the row's own."""
MOST_DIMENSIONS = 64
"""Dimensions of z up to which the total correlation is estimated: its cost grows with them."""
MOST_SAMPLES = 2000
"""Encodings at which it is estimated: with ten thousand of 50 dimensions it would take a minute."""
MOST_OFF = 0.01
"""Nats by which log q(z|x) of a given z may differ, on average, from the exact one that came with the sample z. It does
where the rounding of z matters: behind flows that contract a lot, or far from the origin of hyperbolic space."""


@torch.inference_mode()
def evaluate_information(
    model: Model, data: ResidentDataModule, conditions: Conditions
) -> tuple[dict[str, float], list[Measure]]:
    """I(x; z) and KL(q(z) || p(z)) over ``n_images`` rows of a split, and how they are shown; see
    ``attelbo.metrics.information``.

    Empty for models that cannot evaluate log q(z|x) of a given z: points, codes, hierarchies, flows that cannot be
    inverted, or not from as many digits as z has, which is told; and M2, whose q(z|x) is a mixture over labels. Without
    the aggregate KL where each class has a prior of its own or log p(z) is only estimated; without the terms of that KL
    where q(z|x) or p(z) does not factorize over dimensions, or there is only one, or more than ``MOST_DIMENSIONS``.
    """
    if not isinstance(model, VariationalAutoencoder) or model.sums_over_labels:
        return {}, []
    if not model.has_kl or isinstance(model.posterior.space, Codes):
        return {}, []
    posteriors, samples, log_q, log_p, off, unknown = [], [], [], [], [], model.estimates_prior
    for i, rows in enumerate(conditions.rows(data)):
        conditions.seed_noise("information", i)
        batch = data.materialize(rows, conditions.split)
        q = model.infer(batch.x, batch.y)
        try:
            z, exact = q.rsample_with_log_prob(1)
            log_q.append(q.log_prob(z)[0])
        except NotImplementedError:
            return {}, []
        off.append((log_q[-1] - exact[0]).abs())
        prior = model.prior_of(batch.y)
        unknown = unknown or prior is not model.prior
        log_p.append(prior.log_prob(q.prior_value(z))[0])
        posteriors.append(q)
        samples.append(z[0])
    if not (apart := float(torch.cat(off).double().mean())) < MOST_OFF:
        sys.stderr.write(
            f"mutual information is left out: log q(z|x) of a given z is off by {apart:.2g} nats, since the rounding "
            "of z decides where in such narrow posteriors it is\n"
        )
        return {}, []
    z, sizes = torch.cat(samples), [len(z) for z in samples]
    some = spread_rows(MOST_SAMPLES, len(z), z.device)
    marginals, factorial = None, [q for q in posteriors if isinstance(q, DiagonalNormal)]
    products = len(factorial) == len(posteriors) and isinstance(model.prior, StandardNormal)
    if products and 1 < z[0].numel() <= MOST_DIMENSIONS:
        marginals = marginal_log_prob(z[some], factorial, sizes)
    terms = information_terms(z, torch.cat(log_q), torch.cat(log_p), posteriors, sizes, marginals, some)
    if unknown:
        terms = {"mutual_information": terms["mutual_information"]}
    results: dict[str, float] = {}
    for name, values in terms.items():
        results |= mean_over_rows(conditions.key(name), values)
    bias = bias_of_few_rows(terms["mutual_information"])
    error = results.get(conditions.key("mutual_information_std_error"), math.inf)
    rows = f"{len(z):,} {data.spec.row}{'s' if len(z) > 1 else ''}"
    return results, information_measures(bias, error, rows)


def information_measures(bias: float, error: float, rows: str) -> list[Measure]:
    """``INFORMATION``, with the ``rows`` in a note, and the bias of so few where it is larger than the error."""
    mutual_information, *others = INFORMATION
    less = more = ""
    if bias > error:
        about = bias < _UNKNOWN
        less = f", bias about -{bias:.2f}" if about else f", bias below -{_UNKNOWN:.0f}"
        more = f"bias about {bias:.2f}" if about else f"bias above {_UNKNOWN:.0f}"
    notes = {"aggregate_kl": more, "total_correlation": more}
    return [
        mutual_information._replace(note=f"{rows}{less}"),
        *(measure._replace(note=notes.get(measure.key, "")) for measure in others),
    ]

"""Disentanglement of a trained model on data whose y holds factors of variation."""

import torch

from attelbo.data import ImageDataModule, ResidentDataModule
from attelbo.experiments.evaluation.conditions import Conditions
from attelbo.experiments.evaluation.tables import Tables
from attelbo.metrics import Measure, disentanglement_scores
from attelbo.models import LatentVariableModel
from attelbo.seeding import derive_seed

DISENTANGLEMENT = (
    Measure("mig", "MIG", "mutual information gap, 0..1", 3, better="more"),
    Measure("sap", "SAP", "separated attribute predictability, 0..1", 3, better="more"),
    Measure("modularity", "modularity", "0..1", 3, better="more"),
    Measure("explicitness", "explicitness", "0..1, of factors by a linear classifier", 3, better="more"),
    Measure("irs", "IRS", "interventional robustness, at most 1", 3, better="more"),
    Measure("factor_vae_score", "FactorVAE score", "0..1", 3, better="more"),
    Measure("beta_vae_score", "beta-VAE score", "0..1", 3, better="more"),
    Measure("dci_disentanglement", "DCI disentanglement", "0..1", 3, better="more"),
    Measure("dci_completeness", "DCI completeness", "0..1", 3, better="more"),
    Measure("dci_informativeness", "DCI informativeness", "accuracy, 0..1", 3, better="more"),
)
DRAWN = {"factor_vae_score": 200, "beta_vae_score": 128}
"""Rows that agree in a factor, as drawn for each vote of these scores: with fewer, noise scores as well."""
MOST_ROWS = 10_000
"""Rows of a split that are used: the scores gain nothing from more, and fitting forests takes long."""

MOST_LATENTS = 64
"""The most latents for which the scores are computed by default: their cost grows with the latents, and nobody expects
each number of a feature map or a hierarchy to be a factor."""


def has_factors(data: ResidentDataModule) -> bool:
    """Whether there are at least two factors that vary."""
    factors = data.source.factors if isinstance(data, ImageDataModule) else ()
    return sum(factor.n_values > 1 for factor in factors) > 1


def disentanglement_measures(tables: Tables) -> list[Measure]:
    """``DISENTANGLEMENT``, with a note at the scores for which there are too few rows."""
    n = tables.found.agreeing
    return [
        measure
        if n >= (drawn := DRAWN.get(measure.key, 0))
        else measure._replace(note=f"means little: a vote draws {drawn} rows alike, of {n:.3g}")
        for measure in DISENTANGLEMENT
    ]


@torch.inference_mode()
def evaluate_disentanglement(
    model: LatentVariableModel,
    data: ImageDataModule,
    conditions: Conditions,
) -> Tables | None:
    """The scores of ``attelbo.metrics.disentanglement`` on ``MOST_ROWS`` rows of a split of data that have factors, and
    the tables behind them; None where fewer than two of the factors vary among the rows.
    """
    means, samples, factors = [], [], []
    for i, batch in enumerate(conditions.batches(data, MOST_ROWS)):
        conditions.seed_noise("disentanglement", i)
        latents = model.latents(batch.x, batch.y)
        means.append(latents.posterior.mean.flatten(1).cpu())
        samples.append(latents.z[0].flatten(1).cpu())
        factors.append(batch.y)
    y = torch.cat(factors).cpu()
    if int((y != y[0]).any(0).sum()) < 2:
        return None
    found = disentanglement_scores(
        torch.cat(means),
        torch.cat(samples),
        y,
        [factor.ordered for factor in data.source.factors],
        derive_seed(conditions.seed, "disentanglement") % 2**32,
        conditions.settings.representation,
    )
    names = [factor.name for factor, varies in zip(data.source.factors, found.varies, strict=True) if varies]
    which = "training" if conditions.split == "trained" else conditions.split
    return Tables(names, conditions.settings.representation, f"{len(y):,} {which} images of {data.spec.name}", found)

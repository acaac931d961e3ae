"""Adaptive group VAEs: pairs of images that share factors disentangle them (weak supervision).

Locatello, Poole, Raetsch, Schoelkopf, Bachem & Tschannen 2020, "Weakly-Supervised Disentanglement Without Compromises"
(arXiv:2002.02886), sec. 4: Ada-GVAE and Ada-ML-VAE.

    x, x' -- encoder, posterior --> q(z|x), q(z|x') -- similar dimensions averaged, samples --> z, z'
    z, z' -- decoder, likelihood --> p(x|z), p(x'|z') -- objective --> loss

Shapes: B pairs, (C, H, W) image. Units: nats, summed over the dimensions of x and averaged over images.
"""

from dataclasses import replace
from typing import Any, Unpack

import torch

from attelbo.building import Spec
from attelbo.checks import check_choice
from attelbo.data.batch import Batch, DataSpec
from attelbo.errors import ConfigError
from attelbo.latent import Average, BetaTC, DiagonalNormal, Evidence, share_posteriors
from attelbo.models.parts import model_arguments
from attelbo.models.vae import VAESpecs, VariationalAutoencoder, vae_parts


class AdaptiveVAE(VariationalAutoencoder):
    """A VAE that is trained on pairs; otherwise, in validation too, a VAE of single images.

    The evidence terms of B pairs are those of 2 B images, first all x, then all x', under the posteriors that pairs
    share (:func:`~attelbo.latent.share_posteriors`); objectives treat them as usual, so that the ELBO is the mean of
    the two of a pair.

    Args:
        average: of two posteriors: ``gvae`` (of moments) or ``ml_vae`` (of precisions).
        **parts: those of :class:`VariationalAutoencoder`; the posterior is a diagonal normal.
    """

    uses_data_keys = ("pairs",)

    def __init__(self, average: Average, **parts: Any) -> None:
        super().__init__(**parts)
        self.average: Average = average

    def evidence_of(self, batch: Batch) -> Evidence:
        if batch.partner is None:
            return super().evidence_of(batch)
        x = torch.cat([batch.x, batch.partner])
        q = self.infer(x)
        assert isinstance(q, DiagonalNormal)
        objective = self.objective
        evidence = self.evidence_under(
            share_posteriors(q, self.average),
            x,
            None,
            objective.n_samples,
            log_weights=objective.needs_log_weights,
            stop_posterior=objective.stops_posterior,
        )
        return replace(evidence, n_sets=2)

    def latents_of(self, batch: Batch) -> Evidence:
        return super().latents_of(batch) if batch.partner is None else self.evidence_of(batch)


def build_adaptive_vae(
    data: DataSpec, optimizer: Spec, scheduler: Spec, average: Average = "gvae", **specs: Unpack[VAESpecs]
) -> AdaptiveVAE:
    """Compose an adaptive VAE from its configuration, which is that of a VAE.

    Raises:
        ConfigError: the data have no pairs, the posterior is no diagonal normal, the objective takes rows for
            independent, an argument is out of range, or parts do not fit together.
    """
    if not data.pairs:
        raise ConfigError(
            f"model: AdaptiveVAE learns from pairs of images, and those of {data.name} come one by one; "
            "data.pairs=random makes pairs where factors are known, as of data=sprites"
        )
    with model_arguments():
        check_choice("average", average, Average)
    parts = vae_parts(data, **specs)
    if parts["posterior"].distribution is not DiagonalNormal:
        raise ConfigError(
            f"model/posterior: AdaptiveVAE averages diagonal normals, and {type(parts['posterior']).__name__} has "
            "none; model/posterior=diagonal_normal has"
        )
    if isinstance(parts["objective"], BetaTC):
        raise ConfigError(
            "model/objective: BetaTC takes the rows of a minibatch for independent draws of the data, which images of "
            "a pair are not; model/objective=factor penalizes the total correlation, too"
        )
    return AdaptiveVAE(average, **parts, optimizer=optimizer, scheduler=scheduler)

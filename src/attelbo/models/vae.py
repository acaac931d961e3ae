"""The variational autoencoder: five choices and an objective (Kingma & Welling 2014, arXiv:1312.6114).

    x -- encoder --> h -- posterior --> q(z|x) -- sample --> z -- decoder --> eta -- likelihood --> p(x|z)
                                            prior p(z)
    evidence terms -- objective --> loss

Shapes: K samples of z for each x, B batch, (C, H, W) image, E event shape of z.
Units: nats, summed over the dimensions of x and averaged over the batch.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from attelbo.building import Spec, build
from attelbo.data.batch import Batch, DataSpec
from attelbo.errors import ConfigError, UserError
from attelbo.latent import Evidence, Likelihood, Objective, Posterior, Prior
from attelbo.metrics import ActiveUnits, SampleMean
from attelbo.models.base import Model, Terms
from attelbo.models.loading import load_run
from attelbo.networks import Decoder, Encoder


class VariationalAutoencoder(Model):
    """A VAE made of its parts. See :func:`build_vae` for how a configuration becomes one."""

    def __init__(
        self,
        encoder: Encoder,
        posterior: Posterior,
        prior: Prior,
        decoder: Decoder,
        likelihood: Likelihood,
        objective: Objective,
        optimizer: Spec,
        scheduler: Spec,
    ) -> None:
        super().__init__(optimizer, scheduler)
        self.encoder = encoder
        self.posterior = posterior
        self.prior = prior
        self.decoder = decoder
        self.likelihood = likelihood
        self.objective = objective
        names = ["loss", "elbo", "reconstruction", "kl"] + ["bits_per_dim"] * likelihood.discrete
        self.means = SampleMean(names)
        self.active_units = ActiveUnits(posterior.latent_shape)

    # -- from a batch to its loss ---------------------------------------------------------------

    def losses(self, batch: Batch) -> Terms:
        return self._terms(self._evidence_of(batch))

    def _evidence_of(self, batch: Batch) -> Evidence:
        return self.evidence(batch.x, self.objective.n_samples, log_weights=self.objective.needs_log_weights)

    def evidence(self, x: Tensor, n_samples: int = 1, *, log_weights: bool = False) -> Evidence:
        """The evidence terms of x (B, C, H, W) with K = ``n_samples`` samples of z for each row."""
        q = self.posterior(self.encoder(x))
        z, log_q = q.rsample_with_log_prob(n_samples) if log_weights else (q.rsample(n_samples), None)  # (K, B, *E)
        log_likelihood = self.likelihood.log_prob(self.decode(z), x)  # (K, B)
        return Evidence(
            log_likelihood=log_likelihood,
            kl=self.prior.kl(q, z),
            z=z,
            posterior=q,
            log_weights=None if log_q is None else log_likelihood + self.prior.log_prob(z) - log_q,
        )

    def decode(self, z: Tensor) -> Tensor:
        """The likelihood's parameters eta (K, B, P * C, H, W) for z (K, B, *E)."""
        return self.decoder(z.flatten(0, 1)).unflatten(0, z.shape[:2])

    def at_step(self, step: int, total_steps: int) -> None:
        super().at_step(step, total_steps)
        self.objective.at_step(step, total_steps)

    def _terms(self, evidence: Evidence) -> Terms:
        """The loss and the terms beside it; those are for the eye and take no part in the backward pass."""
        loss = self.objective(evidence)
        with torch.no_grad():
            elbo = -(evidence.distortion + evidence.rate)
        return {
            "loss": loss,
            "elbo": elbo,
            "reconstruction": evidence.distortion.detach(),
            "kl": evidence.rate.detach(),
        }

    # -- evaluation: the same terms, as exact means over a split --------------------------------------

    def evaluation_step(self, batch: Batch) -> None:
        evidence = self._evidence_of(batch)
        terms = {
            "loss": self.objective(evidence).expand(len(batch.x)),
            "elbo": evidence.elbo,
            "reconstruction": evidence.reconstruction,
            "kl": evidence.kl.sum(-1),
        }
        if self.likelihood.discrete:
            terms["bits_per_dim"] = -evidence.elbo / (math.log(2) * batch.x[0].numel())
        self.means.update(terms)
        self.active_units.update(evidence.posterior.mean)

    def evaluation_results(self) -> Terms:
        results = {**self.means.compute(), "active_units": self.active_units.compute()}
        self.means.reset()
        self.active_units.reset()
        return results

    @classmethod
    def from_run(cls, run_dir: str | Path, checkpoint: str = "best") -> Self:
        """The trained model of a run directory, in evaluation mode on the CPU: for notebooks.

        Args:
            run_dir: ``outputs/<name>/<run id>``.
            checkpoint: ``best`` or ``last``.

        Raises:
            UserError: not a run directory, no checkpoint in it, or the run of another kind of model.
        """
        model, _ = load_run(run_dir, checkpoint=checkpoint)
        if not isinstance(model, cls):
            raise UserError(f"{run_dir} is the run of a {type(model).__name__}, not of a {cls.__name__}")
        return model

    # -- what one does with a trained model --------------------------------------------------------

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The posterior means of x (B, C, H, W), flat: (B, D)."""
        return self.posterior(self.encoder(x)).mean.flatten(1)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """E[x | z] at the posterior mean of each x (B, C, H, W), the same shape, in data units."""
        z = self.posterior(self.encoder(x)).mean
        return self.likelihood.mean(self.decode(z.unsqueeze(0)))[0]

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """n images E[x | z], z from the prior: (n, C, H, W), in data units."""
        return self.likelihood.mean(self.decode(self.prior.sample(n).unsqueeze(0)))[0]

    @torch.no_grad()
    def weight_sampler(self, x: Tensor) -> Callable[[int], Tensor]:
        """k -> log p(x, z) - log q(z|x) of k fresh samples for each x, (k, B), nats: what importance sampling
        averages. The encoder runs once, here, however often the function is called."""
        q = self.posterior(self.encoder(x))

        @torch.no_grad()
        def draw(n_samples: int) -> Tensor:
            z, log_q = q.rsample_with_log_prob(n_samples)
            return self.likelihood.log_prob(self.decode(z), x) + self.prior.log_prob(z) - log_q

        return draw


def build_vae(
    data: DataSpec,
    encoder: Spec,
    decoder: Spec,
    posterior: Spec,
    prior: Spec,
    likelihood: Spec,
    objective: Spec,
    latent_dim: int,
    optimizer: Spec,
    scheduler: Spec,
) -> VariationalAutoencoder:
    """Compose a VAE from its configuration; each part is told the shapes that its neighbours fix.

    Raises:
        ConfigError: a part's argument is out of range, or the likelihood is none for this kind of data.
    """
    if latent_dim < 1:
        raise ConfigError(f"model.latent_dim must be at least 1, got {latent_dim}")
    p = _part("likelihood", likelihood, data_shape=data.shape)
    if data.kind not in p.supports:
        raise ConfigError(
            f"model/likelihood: {type(p).__name__} is not a likelihood of {data.name}, whose values are {data.kind}; "
            f"it takes {' or '.join(sorted(p.supports))} (data.binarize decides)"
        )
    f = _part("encoder", encoder, in_shape=data.shape)
    q = _part("posterior", posterior, in_shape=f.out_shape, latent_dim=latent_dim)
    return VariationalAutoencoder(
        encoder=f,
        posterior=q,
        prior=_part("prior", prior, latent_shape=q.latent_shape),
        decoder=_part("decoder", decoder, in_shape=q.latent_shape, out_shape=p.parameter_shape),
        likelihood=p,
        objective=_part("objective", objective),
        optimizer=optimizer,
        scheduler=scheduler,
    )


def _part(name: str, spec: Spec, **shapes: object):
    try:
        return build(spec, **shapes)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.{name}: {error} [{spec['_target_']}]") from error

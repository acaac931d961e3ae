"""The variational autoencoder: five choices and an objective (Kingma & Welling 2014, arXiv:1312.6114).

    x -- encoder --> h -- posterior --> q(z|x) -- sample --> z -- decoder --> eta -- likelihood --> p(x|z)
                                            prior p(z)
    evidence terms -- objective --> loss

Shapes: K samples of z for each x, B batch, (C, H, W) image, E event shape of z.
Units: nats, summed over the dimensions of x and averaged over the batch.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, NotRequired, TypedDict, Unpack

import torch
from torch import Tensor, nn

from attelbo.building import Spec, part
from attelbo.checks import check_at_least
from attelbo.data.batch import DataSpec
from attelbo.latent import Density, Distribution, Evidence, Extra, Likelihood, Objective, Posterior, Prior
from attelbo.latent.control_variates import with_less_noise
from attelbo.latent.gradients import weigh_samples
from attelbo.latent.spaces import Ball, Codes, OneHot, Positive, Product, Real, Space, Sphere
from attelbo.models.latent_variable import LatentVariableModel
from attelbo.models.parts import (
    check_batch_norm,
    check_density,
    check_extra,
    check_inference,
    check_network,
    check_objective,
    check_prior,
    likelihood_of,
    model_arguments,
    offered_by,
)
from attelbo.networks import Decoder, Encoder


class VariationalAutoencoder(LatentVariableModel):
    """A VAE made of its parts. See :func:`build_vae` for how a configuration becomes one."""

    sums_over_labels: ClassVar[bool] = False
    """Whether its bound sums over labels: q(z|x) and p(x|z) of one label are then not those of the bound."""

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
        extra: Extra | None = None,
    ) -> None:
        super().__init__(
            likelihood,
            objective,
            n_latent=math.prod(posterior.latent_shape),
            optimizer=optimizer,
            scheduler=scheduler,
            has_kl=posterior.has_density,
            codes=posterior.space if isinstance(posterior.space, Codes) else None,
            extra=extra,
        )
        self.encoder = encoder
        self.posterior = posterior
        self.prior = prior
        self.decoder = decoder
        prior.attach(self.infer)
        objective.attach(self)

    # -- from a batch to its evidence ---------------------------------------------------------------

    def infer(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        """q(z|x) of x (B, C, H, W)."""
        return self._guided(self.posterior(self.encoder(x)), x, y)

    def _guided(self, q: Distribution, x: Tensor, y: Tensor | None) -> Distribution:
        """q, given log p(x, z) as a function of z, if it depends on it."""
        return q.with_log_joint(self.log_joint(x, y, q, self.guide_of(y)))

    def guide_of(self, y: Tensor | None) -> Density:
        """The prior in that log p(x, z)."""
        return self.prior_of(y)

    def log_joint(
        self, x: Tensor, y: Tensor | None, q: Distribution, prior: Density | None = None
    ) -> Callable[[Tensor], Tensor]:
        """log p(x, z) as a function of z (n, B, *E) as q draws them, with another prior if given: (n, B), nats."""
        p = self.prior_of(y) if prior is None else prior
        return lambda z: self.explain(z, x, y, steady=True)[0] + p.log_prob(q.prior_value(z))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The likelihood's parameters eta (K, B, P * C, H, W) for z (K, B, *E)."""
        return self.decoder(z.flatten(0, 1)).unflatten(0, z.shape[:2])

    def explain(
        self, z: Tensor, x: Tensor, y: Tensor | None = None, *, steady: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """log p(x|z), (K, B), of z (K, B, *E) and x (B, C, H, W), and eta where it is a function of z alone.

        Args:
            z: latents.
            x: the data.
            y: their labels, for models that use labels.
            steady: whether by the likelihood's ``steady_log_prob``.
        """
        eta = self.decode(z, y)
        log_prob = self.likelihood.steady_log_prob if steady else self.likelihood.log_prob
        return log_prob(eta, x), eta

    def prior_of(self, y: Tensor | None = None) -> Density:
        """p(z), the same for all labels."""
        return self.prior

    def evidence(
        self,
        x: Tensor,
        y: Tensor | None = None,
        n_samples: int = 1,
        *,
        log_weights: bool = False,
        stop_posterior: bool = False,
    ) -> Evidence:
        q = self.infer(x, y)
        return self.evidence_under(q, x, y, n_samples, log_weights=log_weights, stop_posterior=stop_posterior)

    def evidence_under(
        self,
        q: Distribution,
        x: Tensor,
        y: Tensor | None,
        n_samples: int,
        *,
        log_weights: bool,
        stop_posterior: bool,
    ) -> Evidence:
        """The evidence terms of x (B, C, H, W) under a posterior that need not be q(z|x); see :meth:`evidence`."""
        prior = self.prior_of(y)
        # A point has no KL: no groups.
        kl = prior.exact_kl(q) if self.has_kl else q.mean.new_zeros(len(x), 0)  # (B, G)
        log_ratio = sample_weights = None
        if log_weights or kl is None:
            z, log_q, reference = q.rsample_for_kl(n_samples)  # (K, B, *E), (K, B)
            if stop_posterior:
                z, sample_weights = weigh_samples(z)
                # Its gradient; its value is that of the sample, which is exact where an inverse of z may not be.
                again = q.stop_gradient().log_prob(z)
                log_q = log_q.detach() + (again - again.detach())
            log_prior = prior.bound if self.training and not log_weights else prior.log_prob
            log_ratio = log_q - log_prior(q.prior_value(z))
            if kl is None:
                sampled = with_less_noise(log_ratio, reference) if self.training else log_ratio
                kl = sampled.mean(0).unsqueeze(-1)
        else:
            z = q.rsample(n_samples)
        log_likelihood, eta = self.explain(z, x, y)  # (K, B)
        return Evidence(
            log_likelihood=log_likelihood,
            kl=kl,
            z=z,
            posterior=q,
            log_weights=log_likelihood - log_ratio if log_weights and log_ratio is not None else None,
            sample_weights=sample_weights,
            x=x,
            y=y,
            eta=eta,
            generative=self,
        )

    def latents(self, x: Tensor, y: Tensor | None = None, n_samples: int = 1) -> Evidence:
        q = self.infer(x, y)
        z = q.rsample(n_samples)
        unknown = z.new_full(z.shape[:2], math.nan)
        return Evidence(unknown, unknown[:1].mT, z, q, x=x, y=y, generative=self)

    def at_step(self, step: int, total_steps: int) -> None:
        super().at_step(step, total_steps)
        self.posterior.at_step(step, total_steps)

    @property
    def space(self) -> Space:
        return self.posterior.space

    @property
    def z_is_vector(self) -> bool:
        if isinstance(self.space, Real | Positive | Sphere | Ball):
            return len(self.space.shape) == 1
        return isinstance(self.space, OneHot | Product)

    @property
    def equal_weights(self) -> bool:
        return self.posterior.distribution.deterministic

    @property
    def estimates_prior(self) -> bool:
        return self.prior.estimates

    def inference_parameters(self) -> list[nn.Parameter]:
        return [*self.encoder.parameters(), *self.posterior.parameters()]

    # -- what one does with a trained model --------------------------------------------------------

    @torch.no_grad()
    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.infer(x, y).center.flatten(1)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.likelihood.mean(self.decode(self.infer(x, y).center.unsqueeze(0), y))[0]

    @torch.no_grad()
    def generate(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        z = z.unflatten(1, self.posterior.latent_shape)
        return self.likelihood.mean(self.decode(z.unsqueeze(0), y))[0]

    def sample_prior(self, n: int, y: Tensor | None = None) -> Tensor:
        """n draws from the prior as the decoder sees them, (n, *E)."""
        return self.posterior.from_prior(self.prior_of(y).sample(n))

    def imagine(self, n: int, y: Tensor | None = None) -> Tensor:
        return self.decode(self.sample_prior(n, y).unsqueeze(0), y)[0]

    @torch.no_grad()
    def weight_sampler(self, x: Tensor, y: Tensor | None = None) -> Callable[[int], Tensor]:
        q, log_prior = self.infer(x, y), self.prior_of(y).density()

        @torch.no_grad()
        def draw(n_samples: int) -> Tensor:
            z, log_q = q.rsample_with_log_prob(n_samples)
            return self.explain(z, x, y)[0] + log_prior(q.prior_value(z)) - log_q

        if q.deterministic:  # all samples are the same
            weights = draw(1)
            return lambda n_samples: weights.expand(n_samples, -1)
        return draw


class LabelAwareSpecs(TypedDict):
    """The configuration of a VAE whose encoder and decoder know labels."""

    encoder: Spec
    decoder: Spec
    posterior: Spec
    prior: Spec
    likelihood: Spec
    objective: Spec
    latent_dim: int


class VAESpecs(LabelAwareSpecs):
    """The configuration of a VAE."""

    extra: NotRequired[Spec | None]


def build_vae(data: DataSpec, optimizer: Spec, scheduler: Spec, **specs: Unpack[VAESpecs]) -> VariationalAutoencoder:
    """Compose a VAE from its configuration; each part gets the shapes that its neighbours determine.

    Raises:
        ConfigError: a part's argument is out of range, or two parts, or a part and the data, do not fit together.
    """
    return VariationalAutoencoder(**vae_parts(data, **specs), optimizer=optimizer, scheduler=scheduler)


def vae_parts(
    data: DataSpec,
    encoder: Spec,
    decoder: Spec,
    posterior: Spec,
    prior: Spec,
    likelihood: Spec,
    objective: Spec,
    latent_dim: int,
    extra: Spec | None = None,
    n_classes: int | None = None,
) -> dict[str, Any]:
    """The parts of a VAE, by name.

    Args:
        n_classes: if encoder and decoder get a label, as one more channel and one-hot after the latents, respectively.

    Raises:
        ConfigError: as :func:`build_vae`.
    """
    with model_arguments():
        check_at_least(1, latent_dim=latent_dim)
    channels, *size = data.shape
    p = likelihood_of(likelihood, data)
    seen = (channels + (n_classes is not None), *size)
    f = part("encoder", encoder, in_shape=seen)
    check_network("encoder", f, seen, f.out_shape)
    q = part("posterior", posterior, in_shape=f.out_shape, latent_dim=latent_dim)
    check_inference(q, f.out_shape)
    check_prior(prior, q.space, q.distribution, type(q).__name__)
    offered = offered_by(q.latent_shape, q.space, data)
    o = part("objective", objective, **offered)
    check_objective(o, q)
    if extra is not None:
        check_extra(extra, o, data)
    r = part("prior", prior, **offered)
    check_density(r, q.space)
    read = q.latent_shape if n_classes is None else (math.prod(q.latent_shape) + n_classes,)
    g = part("decoder", decoder, in_shape=read, out_shape=p.parameter_shape)
    check_network("decoder", g, read, p.parameter_shape)
    check_batch_norm(f, q, r, g)
    return {
        "encoder": f,
        "posterior": q,
        "prior": r,
        "decoder": g,
        "likelihood": p,
        "objective": o,
        "extra": None if extra is None else part("extra", extra, data_shape=data.shape),
    }

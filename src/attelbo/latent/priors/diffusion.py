"""A diffusion model as prior: latent diffusion (Rombach et al. 2022, "High-Resolution Image Synthesis with Latent
Diffusion Models", arXiv:2112.10752), as a hierarchy of T layers of latents with a bound and an unbiased likelihood.

    q(z_t|x) = N(alpha_t x, sigma_t^2 I),  alpha_t^2 + sigma_t^2 = 1,  z_0 = x,  snr_t = alpha_t^2 / sigma_t^2
    p(z_T) = N(0, I),   p(z_{t-1}|z_t) = integral q(z_{t-1}|z_t, x) N(x; m(z_t, t), diag(r(z_t, t)^2)) dx

Sources: Sohl-Dickstein et al. 2015, "Deep Unsupervised Learning using Nonequilibrium Thermodynamics"; Ho et al. 2020,
"Denoising Diffusion Probabilistic Models", eq. 5-7; Kingma et al. 2021, "Variational Diffusion Models", section 3 and
appendix I.1 (levels that are even in log snr, low-discrepancy times); Salimans & Ho 2022, "Progressive Distillation for
Fast Sampling of Diffusion Models", section 4 (the network predicts v).

A step from z_t to z_{t-1} says of x as much as a noisy view of it, independent of z_t given x:

    y_t = x + w_t^(1/2) noise,   1 / w_t = snr_{t-1} - snr_t,   z_{t-1} = a_t z_t + b_t y_t

where a_t and b_t are the coefficients of z_t and x in the mean of q(z_{t-1}|z_t, x) (Ho et al., eq. 7); snr_0 is
infinite, so that w_1 = 0 and z_0 = y_1 = x. Then p(y_t|z_t) = N(m, w_t + r^2), and all else follows:

    KL(q(z_{t-1}|z_t, x) || p(z_{t-1}|z_t)) = E log [N(y_t; x, w_t) / N(y_t; m, w_t + r^2)]
    log p(x) >= -KL(q(z_T|x) || p(z_T)) - sum_{t=2}^T KL_t + E log N(x; m(z_1), r(z_1)^2)                      (bound)
    p(x) = E[p(z_T) / q(z_T|x) prod_{t=2}^T p(y_t|z_t) / q(y_t|x) p(x|z_1)],   z_T, y_T, ..., y_2 ~ q(.|x)     (chain)

Shapes: n samples of z, B batch, N = n B rows, E event shape of z, D its number of dimensions, T steps, S of them drawn
for a row in training, C features of the network, Y classes.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attelbo.checks import check_at_least, check_repetitions
from attelbo.latent.arithmetic import LOG_2PI, bound_log_std, full_precision
from attelbo.latent.priors.base import Density, classes_of
from attelbo.latent.priors.denoisers import NoiseLevels, ResidualDenoiser
from attelbo.latent.priors.standardized import Standardized

_LOG_SNR = (6.0, -5.0)
"""Of z_1, where the std of the noise is 0.05, and of z_T, which tells at most 0.003 nats about each dimension of x."""


class DiffusionPrior(Standardized):
    """z = center + spread * x, of x a diffusion model; a subclass gives the network. It starts as the standard normal.

    ``log_prob`` follows one chain, T passes of the network for each z: the logarithm of an unbiased estimate of p(z),
    so that importance sampling converges to log p of the data, whatever T. In expectation it is the bound. The ELBO
    that is printed is that of a VAE with T + 1 layers of latents, and its KL an upper bound of that of z.

    ``bound``, by which it is trained, takes one pass: S random steps for each row, all of a batch evenly spread. It is
    log N(x; 0, I) plus T times what p gains over the standard normal at these steps, with the same noise, much of which
    cancels: at the start all of it. Its gradient with respect to z is that of the bound, too, so that a VAE can be
    trained together with it (Vahdat et al. 2021, "Score-based Generative Modeling in Latent Space"), if with more noise
    than with other priors, which makes the encoder less informative.

    As a second stage it takes more epochs than a flow, and is at its best where the KL weighed little in the first: on
    the digits, with 8 latents and a weight of 0.05, the NLL is 29.5 nats with the standard normal, 23.4 with MAF and
    22.7 with this, after 60 epochs. In ``digits/autoencoder_kl``, with a weight of 1, MAF is better by 0.2 to 0.5 nats.

    Why not otherwise: a chain that leaves out steps is that of another p(z); a few terms in place of all T have no bias
    in log p(z), but in p(z) one that is exponential in their noise. The density of the probability flow (Song et al.
    2021, "Score-Based Generative Modeling through Stochastic Differential Equations", section 4.3) is known up to the
    errors of a solver and of a stochastic trace, which leave no bound, and needs more passes.

    Differs from the papers: the network also says how uncertain it is about x, r. From it follows the variance of each
    step, which is beta-tilde for r = 0, and that of p(x|z_1). At its best r^2 is the variance of x given z_t (Bao et
    al. 2022, "Analytic-DPM", theorem 1), so that few steps suffice: with beta-tilde step t costs (u - log(1 + u)) / 2
    nats more in each dimension, u = r^2 / w_t. The loss is the bound itself, not the "simple" one.

    Args:
        latent_shape: E, the shape of one z.
        network: z_t (N, D) and a condition (N, C) or (1, C) -> v and log (r / sigma_t), (N, 2 D); zero at the start.
        steps: T.
        n_times: S, in training.
        dim: C.
        data_classes: Y, for a prior for each class, p(z|y) by :meth:`given`; without a label it is their mixture, at Y
            times the cost. None: the same for all.

    Raises:
        ValueError: fewer than 2 steps, or n_times below 1.
    """

    estimates = True
    alpha: Tensor
    sigma: Tensor
    view: Tensor
    keep: Tensor
    take: Tensor
    _order: Tensor

    def __init__(
        self,
        latent_shape: Sequence[int],
        network: nn.Module,
        steps: int,
        n_times: int,
        dim: int,
        data_classes: int | None = None,
    ) -> None:
        super().__init__(latent_shape)
        check_at_least(2, steps=steps)
        check_at_least(1, n_times=n_times)
        self.steps = steps
        self.n_times = n_times
        log_snr = torch.linspace(*_LOG_SNR, steps, dtype=torch.float64)
        for name, values in schedule(log_snr)._asdict().items():
            self.register_buffer(name, values.float().unsqueeze(-1), persistent=False)
        self.register_buffer("_order", torch.arange(steps), persistent=False)
        self.level = NoiseLevels(log_snr, dim)
        self.classes = None if data_classes is None else nn.Parameter(torch.randn(data_classes, dim))
        self.network = network

    # -- the density, each for z (n, B, *E) and labels (B, Y), one-hot, or None: (n, B), nats ------------------------

    def log_prob_given(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """The logarithm of an unbiased estimate of p(z|y), by a chain from z_T to z for each z."""
        x, condition, log_scale = self._rows(z, labels)
        noise = torch.randn_like(x)
        noisy = self.alpha[-1] * x + self.sigma[-1] * noise
        log_ratio = self.sigma[-1].log() + 0.5 * (noise.square() - noisy.square())  # p(z_T) / q(z_T|x), (N, D)
        for step in reversed(self._order[1:].split(1)):
            mean, variance = self.denoise(noisy, step, condition)
            noise, view = torch.randn_like(x), self.view[step]
            y = x + view.sqrt() * noise
            variance = variance + view
            log_ratio = log_ratio + 0.5 * (noise.square() - (y - mean).square() / variance - (variance / view).log())
            noisy = self.keep[step] * noisy + self.take[step] * y
        mean, variance = self.denoise(noisy, self._order[:1], condition)
        log_p = log_ratio - 0.5 * ((x - mean).square() / variance + variance.log() + LOG_2PI)
        return log_p.sum(-1).unflatten(0, z.shape[:2]) + log_scale

    def bound_given(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """An unbiased estimate of a lower bound of log p(z|y), from S random steps for each z."""
        x, condition, log_scale = self._rows(z, labels)
        n = len(x)
        x = x.repeat(self.n_times, 1)  # (S N, D)
        condition = None if condition is None else condition.repeat(self.n_times, 1)
        even = torch.arange(self.n_times * n, device=x.device).view(n, self.n_times).mT.flatten() / (self.n_times * n)
        step = (self.steps * ((torch.rand(1, dtype=x.dtype, device=x.device) + even) % 1)).long()
        step = step.clamp(max=self.steps - 1)  # by rounding
        alpha, sigma, view = self.alpha[step], self.sigma[step], self.view[step]
        noisy = alpha * x + sigma * torch.randn_like(x)
        mean, variance = self.denoise(noisy, step, condition)
        known, own = view + sigma.square(), view + variance  # of a view: by the standard normal, by p
        gain = ((x - alpha * noisy).square() + view) / known - ((x - mean).square() + view) / own + (known / own).log()
        gain = gain.sum(-1).view(self.n_times, n).mean(0)
        log_normal = -0.5 * (x[:n].square() + LOG_2PI).sum(-1)
        return (log_normal + 0.5 * self.steps * gain).unflatten(0, z.shape[:2]) + log_scale

    def denoise(self, noisy: Tensor, step: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and variance of x given z_t, (N, D).

        Args:
            noisy: z_t, (N, D).
            step: t - 1, (N,) or (1,).
            condition: of the class, (N, C); None: there are no classes.
        """
        level = self.level(step)
        v, log_r = full_precision(self.network(noisy, level if condition is None else level + condition)).chunk(2, -1)
        sigma = self.sigma[step]
        std = sigma * bound_log_std(log_r).exp()
        return self.alpha[step] * noisy - sigma * v, std.square()

    def sample_given(self, n: int, labels: Tensor | None) -> Tensor:
        """n samples, (n, *E), of these labels (n, Y)."""
        condition = self._condition(labels)
        noisy = torch.randn(n, len(self.center), dtype=self.center.dtype, device=self.center.device)
        for step in reversed(self._order.split(1)):
            mean, variance = self.denoise(noisy, step, condition)
            y = mean + (self.view[step] + variance).sqrt() * torch.randn_like(mean)
            noisy = self.keep[step] * noisy + self.take[step] * y
        return self._place(noisy)

    # -- as a prior -----------------------------------------------------------------------------------------------

    @property
    def knows_labels(self) -> bool:
        return self.classes is not None

    def given(self, labels: Tensor) -> Density:
        return _Given(self, labels) if self.knows_labels else self

    def log_prob(self, z: Tensor) -> Tensor:
        if self.classes is None:
            return self.log_prob_given(z, None)
        return self._of_each_class(self.log_prob_given, z).logsumexp(-1) - math.log(len(self.classes))

    def bound(self, z: Tensor) -> Tensor:
        return self.bound_given(z, None) if self.classes is None else self._of_each_class(self.bound_given, z).mean(-1)

    def sample(self, n: int) -> Tensor:
        if self.classes is None:
            return self.sample_given(n, None)
        y = torch.randint(len(self.classes), (n,), device=self.classes.device)
        return self.sample_given(n, nn.functional.one_hot(y, len(self.classes)))

    def _rows(self, z: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
        """x (N, D), the condition of the class (N, C), and log |det dx/dz|."""
        x, log_scale = self._standardize(z)
        condition = self._condition(labels)
        return x.flatten(0, 1), None if condition is None else condition.repeat(len(z), 1), log_scale

    def _condition(self, labels: Tensor | None) -> Tensor | None:
        """(B, C) of labels (B, Y)."""
        if labels is None or self.classes is None:
            return None
        return full_precision(labels).to(self.classes.dtype) @ self.classes

    def _of_each_class(self, density: Callable[[Tensor, Tensor], Tensor], z: Tensor) -> Tensor:
        """Density of z (n, B, *E) given each class, (n, B, Y)."""
        assert self.classes is not None
        n_classes = len(self.classes)
        labels = torch.eye(n_classes, device=z.device).repeat(z.shape[1], 1)
        return density(z.repeat_interleave(n_classes, 1), labels).unflatten(1, (-1, n_classes))


class Diffusion(DiffusionPrior):
    """One whose network is fully connected, with residuals, for latents in any shape: they are flattened.

    Args:
        latent_shape: E, the shape of one z.
        data_classes: Y, of the data; None where they have none.
        steps: T; each evaluation of log p(z) and each sample takes as many passes of the network.
        n_times: S, steps drawn for each z in training: more, and the gradient has less noise.
        dim: C, features of the network.
        layers: of it, each with 2 C hidden units.
        class_conditional: whether it is a prior for each class.

    Raises:
        ValueError: a size below 1, fewer than 2 steps, or a prior for each class of data that have none.
    """

    def __init__(
        self,
        latent_shape: Sequence[int],
        data_classes: int | None = None,
        steps: int = 32,
        n_times: int = 8,
        dim: int = 128,
        layers: int = 3,
        class_conditional: bool = False,
    ) -> None:
        check_at_least(1, dim=dim)
        check_repetitions(layers=layers)
        n_classes = classes_of(data_classes, class_conditional)
        network = ResidualDenoiser(math.prod(latent_shape), dim, layers)
        super().__init__(latent_shape, network, steps, n_times, dim, n_classes)


class Schedule(NamedTuple):
    """Coefficients of each step, t = 1 .. T, (T,)."""

    alpha: Tensor
    """Of x in z_t."""
    sigma: Tensor
    """The std of the noise in z_t."""
    view: Tensor
    """w_t, the variance of the noise in the view y_t."""
    keep: Tensor
    """a_t, of z_t in z_{t-1}."""
    take: Tensor
    """b_t, of the view y_t in z_{t-1}."""


def schedule(log_snr: Tensor) -> Schedule:
    """Of these log snr_t, (T,), falling; snr_0 is infinite."""
    snr, alpha = log_snr.exp(), log_snr.sigmoid().sqrt()
    left = (log_snr[1:] - log_snr[:-1]).exp()  # snr_t / snr_{t-1}
    view = 1 / (snr[:-1] - snr[1:])
    zero, one = log_snr.new_zeros(1), log_snr.new_ones(1)
    return Schedule(
        alpha,
        (-log_snr).sigmoid().sqrt(),
        torch.cat([zero, view]),
        torch.cat([zero, left * alpha[:-1] / alpha[1:]]),
        torch.cat([one, alpha[:-1] * (1 - left)]),
    )


class _Given(Density):
    """p(z|y) of a batch of labels (B, Y)."""

    def __init__(self, prior: DiffusionPrior, labels: Tensor) -> None:
        self.prior = prior
        self.labels = labels

    def log_prob(self, z: Tensor) -> Tensor:
        return self.prior.log_prob_given(z, self.labels)

    def bound(self, z: Tensor) -> Tensor:
        return self.prior.bound_given(z, self.labels)

    def sample(self, n: int) -> Tensor:
        assert n == len(self.labels), "one sample for each label"
        return self.prior.sample_given(n, self.labels)

"""The ladder VAE: posteriors that combine a bottom-up likelihood with the prior (Sonderby et al. 2016, "Ladder
Variational Autoencoders", arXiv:1602.02282), and with ``skip`` and a VampPrior the hierarchical model of Tomczak &
Welling 2018, section 4.

    x -- encoder --> d_1 --> d_2 --> ... --> d_L              m_l, s_l: linear maps of d_l
    z_L ~ N(m_L, s_L^2),  p(z_L): any prior
    q(z_l|z_{l+1}, x) ~ N(m_l, s_l^2) * p(z_l|z_{l+1}), normalized: precisions add up (eq. 8-10)
    z_1, or all of them -- decoder --> eta -- likelihood --> p(x|z)

Ours differs: no batch normalization (it ties the rows of a batch together), so warm-up is more important
(``model.objective.weight``); the first stage of d and the last of the decoder are any encoder and decoder.

Shapes: B batch, N rows, L layers, layer l has latent_dims[l - 1] dimensions, from the bottom (1) to the top (L).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attelbo.building import Spec, part
from attelbo.data.batch import DataSpec
from attelbo.errors import ConfigError
from attelbo.latent import DiagonalNormal, Likelihood, Objective, Prior
from attelbo.latent.arithmetic import full_precision
from attelbo.latent.posteriors.base import flat_features
from attelbo.latent.spaces import Real
from attelbo.models.hierarchy import Choice, Hierarchy, parameters_of, split_normal
from attelbo.models.parts import (
    check_density,
    check_objective_of_terms,
    check_prior,
    check_pseudo_inputs,
    likelihood_of,
    model_arguments,
    offered_by,
)
from attelbo.networks import Decoder, Encoder
from attelbo.networks.layers import Activation, activation_layer, hidden_layers, positive


class LadderVAE(Hierarchy):
    """See :func:`build_ladder` for how a configuration becomes one."""

    def __init__(
        self,
        encoder: Encoder,
        prior: Prior,
        decoder: Decoder,
        likelihood: Likelihood,
        objective: Objective,
        latent_dims: Sequence[int],
        hidden: Sequence[int],
        activation: Activation,
        skip: bool,
        optimizer: Spec,
        scheduler: Spec,
    ) -> None:
        super().__init__(likelihood, objective, sum(latent_dims), optimizer, scheduler)
        self.layer_shapes = [(dim,) for dim in reversed(latent_dims)]
        self.skip = skip
        self.encoder = encoder
        widths = [math.prod(encoder.out_shape), *hidden]
        self.upward = nn.ModuleList(_mlp(a, b, activation) for a, b in zip(widths, hidden, strict=False))
        self.readings = nn.ModuleList(nn.Linear(w, 2 * d) for w, d in zip(widths, latent_dims, strict=True))
        self.prior = prior
        # p(z_l|z_{l+1}), l = 1 .. L - 1
        self.downward = nn.ModuleList(
            nn.Sequential(_mlp(above, width, activation), nn.Linear(width, 2 * below))
            for above, width, below in zip(latent_dims[1:], hidden, latent_dims, strict=False)
        )
        self.decoder = decoder
        prior.attach(self.infer_top)

    def infer_top(self, x: Tensor) -> DiagonalNormal:
        """q(z_L|x) of x (B, C, H, W)."""
        return split_normal(self.bottom_up(x)[-1])

    def bottom_up(self, x: Tensor) -> list[Tensor]:
        """(m_l, log s_l) of each layer, (B, 2 D_l), from the bottom to the top."""
        d = flat_features(self.encoder(x))
        read = [self.readings[0](d)]
        for up, reading in zip(self.upward, list(self.readings)[1:], strict=True):
            d = up(d)
            read.append(reading(d))
        return [full_precision(parameters) for parameters in read]

    def descend(self, n: int, choose: Choice, activations: list[Tensor] | None) -> Tensor:
        read: list[DiagonalNormal | None] = [None] * len(self.layer_shapes)
        if activations is not None:
            read = [split_normal(parameters) for parameters in activations]
        z = choose(read[-1], self.prior)
        chosen = [z]
        for down, likely in zip(list(self.downward)[::-1], read[-2::-1], strict=True):
            p = split_normal(full_precision(down(z)))
            z = choose(None if likely is None else precision_weighted(likely, p), p)
            chosen.append(z)
        return self.decoder(torch.cat(chosen, -1) if self.skip else z)

    @property
    def estimates_prior(self) -> bool:
        return self.prior.estimates

    def inference_parameters(self) -> list[nn.Parameter]:
        return parameters_of(self.encoder, self.upward, self.readings)


def precision_weighted(a: DiagonalNormal, b: DiagonalNormal) -> DiagonalNormal:
    """The normal proportional to the product of two (Sonderby et al., eq. 8-9): precisions add, means are weighted by
    them."""
    # In logarithms: sigma^-2 = a^-2 + b^-2 neither overflows nor divides by zero.
    log_std = -0.5 * torch.logaddexp(-2 * a.log_std, -2 * b.log_std)
    share = torch.sigmoid(2 * (b.log_std - a.log_std))  # a's precision among both
    return DiagonalNormal(torch.lerp(b.mean, a.mean, share), log_std)


def _mlp(n_in: int, n_out: int, activation: Activation) -> nn.Sequential:
    return nn.Sequential(*hidden_layers((n_in, n_out, n_out), activation))


def build_ladder(
    data: DataSpec,
    encoder: Spec,
    decoder: Spec,
    prior: Spec,
    likelihood: Spec,
    objective: Spec,
    latent_dims: Sequence[int],
    hidden: Sequence[int],
    optimizer: Spec,
    scheduler: Spec,
    activation: Activation = "leaky_relu",
    skip: bool = False,
) -> LadderVAE:
    """Compose a ladder VAE from its configuration.

    Args:
        data: what is known of the data.
        encoder: x -> d_1.
        decoder: z_1, or with ``skip`` all layers, -> eta.
        prior: of z_L.
        likelihood: of x.
        objective: made of the evidence terms alone.
        latent_dims: dimensions of z_1 .. z_L.
        hidden: units of d_2 .. d_L and of the maps between z_L .. z_1.
        optimizer: its configuration.
        scheduler: the learning rate's.
        activation: after each hidden layer.
        skip: whether the decoder reads all layers, not z_1 only.

    Raises:
        ConfigError: an argument is out of range, or two parts do not fit together.
    """
    if not latent_dims or len(hidden) != len(latent_dims) - 1:
        raise ConfigError(
            f"model.hidden must have one number less than model.latent_dims, one for each layer above the first; "
            f"got {list(hidden)} and {list(latent_dims)}"
        )
    with model_arguments():
        positive("latent_dims", latent_dims)
        positive("hidden", hidden)
        activation_layer(activation)
    p = likelihood_of(likelihood, data)
    o = part("objective", objective)
    check_objective_of_terms(o, "a hierarchy")
    top = Real((latent_dims[-1],))
    check_prior(prior, top, DiagonalNormal, "a ladder's topmost layer")
    seen = (sum(latent_dims) if skip else latent_dims[0],)
    f = part("encoder", encoder, in_shape=data.shape)
    r = part("prior", prior, **offered_by(top.shape, top, data))
    check_density(r, top)
    check_pseudo_inputs(r, encoder=f)
    return LadderVAE(
        encoder=f,
        prior=r,
        decoder=part("decoder", decoder, in_shape=seen, out_shape=p.parameter_shape),
        likelihood=p,
        objective=o,
        latent_dims=latent_dims,
        hidden=hidden,
        activation=activation,
        skip=skip,
        optimizer=optimizer,
        scheduler=scheduler,
    )

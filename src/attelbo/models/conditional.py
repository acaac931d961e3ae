"""The conditional variational autoencoder: every distribution of a VAE is conditioned on the label.

Sohn, Lee & Yan 2015, "Learning Structured Output Representation using Deep Conditional Generative Models", with the
label as the condition.

    (x, y) -- encoder, posterior --> q(z|x,y)        prior p(z|y)        (z, y) -- decoder, likelihood --> p(x|y,z)

Its bounds are on log p(x|y), not comparable with those on log p(x).

Shapes: K samples of z for each x, B batch, Y classes, (C, H, W) image, E event shape of z, D its dimensions.
Units: nats, summed over the dimensions of x and averaged over the batch.
"""

from typing import Any, Unpack

import torch
from torch import Tensor, nn

from attelbo.building import Spec
from attelbo.data.batch import DataSpec
from attelbo.errors import ConfigError
from attelbo.latent import Density, Distribution
from attelbo.models.vae import LabelAwareSpecs, VariationalAutoencoder, vae_parts


class ConditionalVAE(VariationalAutoencoder):
    """A VAE of x given its label. The encoder gets the label as one more channel, a learned plane for each class; the
    decoder gets it one-hot, concatenated to z. See :func:`build_conditional_vae`.

    Args:
        n_classes: Y.
        **parts: those of :class:`VariationalAutoencoder`; the encoder takes (C + 1, H, W), the decoder (D + Y,).
    """

    encodes_labels = True
    _classes: Tensor

    def __init__(self, n_classes: int, **parts: Any) -> None:
        super().__init__(**parts)
        self.n_classes = n_classes
        self.register_buffer("_classes", torch.arange(n_classes), persistent=False)
        _, *size = self.encoder.in_shape
        self.planes = nn.Parameter(torch.randn(n_classes, 1, *size))

    def one_hot(self, y: Tensor) -> Tensor:
        """Labels y (...) as (..., Y); zeros for an unknown label, -1."""
        return (y.unsqueeze(-1) == self._classes).to(self.planes.dtype)

    @property
    def given(self) -> str:
        return "the label"

    # -- from a batch to its evidence ---------------------------------------------------------------

    def infer(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        """q(z|x,y) of x (B, C, H, W) and y (B,)."""
        planes = torch.tensordot(self.one_hot(_known(y)), self.planes, 1)  # (B, 1, H, W)
        return self._guided(self.posterior(self.encoder(torch.cat([x, planes.to(x.dtype)], 1))), x, y)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The likelihood's parameters eta (K, B, P * C, H, W) for z (K, B, *E) and y (B,)."""
        labels = self.one_hot(_known(y)).to(z.dtype).expand(len(z), -1, -1)
        return super().decode(torch.cat([z.flatten(2), labels], -1), y)

    def prior_of(self, y: Tensor | None = None) -> Density:
        """p(z|y)."""
        return self.prior.given(self.one_hot(_known(y)))

    def inference_parameters(self) -> list[nn.Parameter]:
        return [*super().inference_parameters(), self.planes]

    # -- what one does with a trained model: without labels, classes in turn ---------------------------

    @property
    def known_classes(self) -> int | None:
        return self.n_classes

    def sample_prior(self, n: int, y: Tensor | None = None) -> Tensor:
        return super().sample_prior(n, self._in_turn(n) if y is None else y)

    def imagine(self, n: int, y: Tensor | None = None) -> Tensor:
        return super().imagine(n, self._in_turn(n) if y is None else y)

    def generate(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return super().generate(z, self._in_turn(len(z)) if y is None else y)

    def _in_turn(self, n: int) -> Tensor:
        """Labels 0, 1, ..., Y - 1, 0, ..., (n,)."""
        return torch.arange(n, device=self._classes.device) % self.n_classes


def _known(y: Tensor | None) -> Tensor:
    assert y is not None, "labels are needed"
    return y


def build_conditional_vae(
    data: DataSpec, optimizer: Spec, scheduler: Spec, **specs: Unpack[LabelAwareSpecs]
) -> ConditionalVAE:
    """Compose a conditional VAE from its configuration, which is that of a VAE.

    Raises:
        ConfigError: the data lack labels, an argument is out of range, or parts do not fit together.
    """
    n_classes = check_labels("ConditionalVAE", data)
    if data.n_labels is not None:
        raise ConfigError(
            f"model: ConditionalVAE needs the label of every row, and data.n_labels={data.n_labels} keeps few; "
            "model=m2 learns from the others too"
        )
    parts = label_aware_parts(n_classes, data, **specs)
    return ConditionalVAE(n_classes, **parts, optimizer=optimizer, scheduler=scheduler)


def check_labels(model: str, data: DataSpec) -> int:
    """The number of classes; raise ConfigError if the data have none."""
    if data.n_classes is None:
        how = f"; {data.how_labelled}" if data.how_labelled else ""
        raise ConfigError(f"model: {model} needs labels, {data.name} has none{how}")
    return data.n_classes


def label_aware_parts(n_classes: int, data: DataSpec, **specs: Unpack[LabelAwareSpecs]) -> dict[str, Any]:
    """The parts of a VAE with room for the label, by name, from what :func:`~attelbo.models.vae.vae_parts` is given.

    Raises:
        ConfigError: an argument is out of range, or parts do not fit together.
    """
    parts = vae_parts(data, **specs, n_classes=n_classes)
    if parts["prior"].made_of_posteriors:
        raise ConfigError(
            f"model/prior: {type(parts['prior']).__name__} is made of posteriors q(z|x), and here they are given labels"
        )
    return parts

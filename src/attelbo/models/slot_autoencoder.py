"""The slot-attention autoencoder: an image is a set of slots that compete for its pixels.

Locatello et al. 2020, "Object-Centric Learning with Slot Attention", arXiv:2006.15055, section 3.1, object discovery.

    x -- encoder, slot attention --> K slots -- posterior --> q(z|x) -- sample --> z_1 .. z_K
    z_k -- decoder --> eta_k, a mask logit for each pixel        eta = sum_k softmax_k(logit) eta_k

A VAE whose encoder and decoder keep slots apart; it is trained without segmentations. Ours differs: the paper's slots
are points and its loss is the squared error; here each z_k has a posterior and a prior, so that there is a bound, and
scenes can be sampled. The weight of the KL turns one into the other.

Shapes: B batch, (C, H, W) image, K slots, z (D, K, 1). Units: nats.
"""

from collections.abc import Sequence
from typing import Any, Unpack, cast

import torch
from torch import Tensor

from attelbo.building import Spec
from attelbo.data.batch import Batch, DataSpec
from attelbo.errors import ConfigError
from attelbo.metrics import Measure, SampleMean, adjusted_rand_index
from attelbo.models.base import Terms
from attelbo.models.vae import VAESpecs, VariationalAutoencoder, vae_parts
from attelbo.networks import SlotDecoder


class SlotAutoencoder(VariationalAutoencoder):
    """A VAE with a :class:`~attelbo.networks.SlotDecoder`. See :func:`build_slot_autoencoder`.

    Args:
        segmented: whether evaluation data have ground-truth segmentations.
        **parts: those of :class:`VariationalAutoencoder`.
    """

    def __init__(self, segmented: bool, **parts: Any) -> None:
        super().__init__(**parts)
        self.findings = SampleMean(["adjusted_rand_index"]) if segmented else None

    @property
    def slots(self) -> SlotDecoder:
        """The decoder, which paints each slot."""
        return cast(SlotDecoder, self.decoder)

    # -- evaluation: the objects ----------------------------------------------------------------------

    def found_in(self, batch: Batch) -> Terms:
        assert batch.segments is not None
        index = adjusted_rand_index(self.segment(batch.x).flatten(1), batch.segments.flatten(1))
        return {"adjusted_rand_index": index[~index.isnan()]}

    @property
    def measures(self) -> Sequence[Measure]:
        index = Measure("adjusted_rand_index", "adjusted Rand index", "of the pixels of objects", 3, better="more")
        return (*super().measures, index)

    # -- what one does with a trained model --------------------------------------------------------

    @torch.no_grad()
    def layers(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What each slot paints at the center of the posterior of x (n, C, H, W), E[x | z_k], (n, K, C, H, W) in data
        units, and its share of each pixel, (n, K, H, W)."""
        painted, shares = self.slots.layers(self.infer(x).center)
        return self.likelihood.mean(painted), shares

    def segment(self, x: Tensor) -> Tensor:
        """The slot with the largest share of each pixel of x (n, C, H, W): (n, H, W), in 0..K - 1."""
        return self.layers(x)[1].argmax(1)


def build_slot_autoencoder(
    data: DataSpec, optimizer: Spec, scheduler: Spec, **specs: Unpack[VAESpecs]
) -> SlotAutoencoder:
    """Compose a slot-attention autoencoder from its configuration, which is that of a VAE.

    Raises:
        ConfigError: a decoder without slots, or what :func:`~attelbo.models.build_vae` refuses.
    """
    parts = vae_parts(data, **specs)
    if not isinstance(parts["decoder"], SlotDecoder):
        raise ConfigError(
            f"model/decoder: slots are painted each by itself, by model/decoder=slots, not by "
            f"{type(parts['decoder']).__name__}; experiment=digits/slots has both"
        )
    return SlotAutoencoder(data.n_objects is not None, **parts, optimizer=optimizer, scheduler=scheduler)

"""Vector quantization from coarse to fine (Tian et al. 2024, "Visual Autoregressive Modeling: Scalable Image Generation
via Next-Scale Prediction", arXiv:2404.02905, sec. 3.2, algorithms 1 and 2).

    rest = v;  for each scale k:  codes_k = nearest(coarsen(rest)),  part_k = phi_k(refine(e[codes_k])),  rest -= part_k
    z = part_1 + ... + part_K

Shapes: B batch, (H, W) places, N = H W; n_k places of scale k, T = n_1 + ... + n_K; D = latent_dim.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attelbo.latent.posteriors.quantizing import QuantizingPosterior, straight_through
from attelbo.latent.posteriors.vector_quantized import make_codebook
from attelbo.latent.pyramid import Pyramid, sizes_of
from attelbo.latent.spaces import ScaledCodes


class MultiScaleVectorQuantizedPosterior(QuantizingPosterior):
    """A map as the sum of K maps of codes, each for what those before it, which are coarser, have left.

    All scales share one codebook. A convolution phi_k follows the interpolation of each; the loss has, beside the
    commitment of v to the partial sums f_k = part_1 + ... + part_k, the term by which phi learns:

        mean over k of |sg(v) - f_k|^2 + commitment |v - sg(f_k)|^2

    Differs from the paper: phi_k is the identity plus a convolution that begins at zero, one for each scale (the
    authors' code shares four, which weigh half); the codebook is a moving average unless ``decay`` is None, with dead
    codes restarted; squares are summed over the dimensions of z, as the log-likelihood is over those of x.

    Args:
        in_shape: of the encoder's output, (C, H, W), or (C,), which is one place.
        latent_dim: D.
        n_codes: in the codebook.
        scales: the heights of the K maps, the last H; widths are in proportion. None: those of the paper up to H,
            1, 2, 3, 4, 5, 6, 8, 10, 13, 16. Codes of one scale are predicted independently, so that steps are small.
        commitment: the weight beta of the term that draws v to its codes.
        decay: of the moving averages that are the codebook; None: it is learned by gradient.
        restart_below: the fraction of the mean use below which a code is restarted; 0: never.

    Raises:
        ValueError: latent_dim below 1, or scales that do not rise to H; else as the codebook.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        latent_dim: int,
        n_codes: int = 512,
        scales: Sequence[int] | None = None,
        commitment: float = 0.25,
        decay: float | None = 0.99,
        restart_below: float = 0.1,
    ) -> None:
        height, width = in_shape[1:] or (1, 1)
        sizes = sizes_of((height, width), scales)
        super().__init__(in_shape, latent_dim, ScaledCodes.of(sizes, n_codes))
        self.pyramid = Pyramid(sizes)
        self.codebook = make_codebook(n_codes, latent_dim, commitment, decay, restart_below)
        self.smoothers = nn.ModuleList(_Smoother(latent_dim, sizes[-1]) for _ in sizes)

    def at_step(self, step: int, total_steps: int) -> None:
        self.codebook.at_step(step)

    def quantize(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        flat = v.view(len(v), -1, v.shape[-1])  # (B, N, D)
        so_far, codes, squares = torch.zeros_like(flat), [], torch.zeros_like(flat[..., 0])
        for k in range(len(self.smoothers)):
            rest = (flat - so_far).detach()
            codes.append(self._nearest(rest, k))
            so_far = so_far + self._part(codes[-1], k)
            squares = squares + (flat.detach() - so_far).square().sum(-1)
            squares = squares + self.codebook.commitment * (flat - so_far.detach()).square().sum(-1)
        z = straight_through(flat, so_far).view_as(v)
        return z, torch.cat(codes, 1), (squares / len(codes)).view(v.shape[:-1])

    def look_up(self, codes: Tensor) -> Tensor:
        parts = [self._part(own, k) for k, own in enumerate(self.pyramid.split(codes))]
        z = torch.stack(parts).sum(0)
        return z.view(len(z), *self.latent_shape[1:], -1)

    # In full precision both: autocast would round away what finer scales have to add.

    def _nearest(self, rest: Tensor, k: int) -> Tensor:
        """The codes (n, n_k) of a map (n, N, D) at scale k."""
        with torch.autocast(rest.device.type, enabled=False):
            return self.codebook.choose(self.pyramid.coarsen(rest, k))

    def _part(self, codes: Tensor, k: int) -> Tensor:
        """What the codes (n, n_k) of scale k add to z: (n, N, D)."""
        with torch.autocast(codes.device.type, enabled=False):
            return self.smoothers[k](self.pyramid.refine(self.codebook.look_up(codes), k))


class _Smoother(nn.Module):
    """phi_k: a map (n, N, D) and a 3 x 3 convolution of it, which begins at zero."""

    def __init__(self, dim: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.convolution = nn.Conv2d(dim, dim, 3, padding=1)
        for parameter in self.convolution.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convolution(x.mT.unflatten(-1, self.size)).flatten(2).mT

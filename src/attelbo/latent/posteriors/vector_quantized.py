"""Vector quantization (van den Oord, Vinyals & Kavukcuoglu 2017, "Neural Discrete Representation Learning").

Shapes: B batch, (H, W) places, Q codes at each, D = latent_dim.
"""

from collections.abc import Sequence

from torch import Tensor

from attelbo.latent.codebook import Codebook, MovingCodebook
from attelbo.latent.posteriors.quantizing import QuantizingPosterior, codes_at_places, straight_through


class VectorQuantizedPosterior(QuantizingPosterior):
    """The nearest of K codebook vectors, for the D numbers at each place or for each of Q equal pieces of them.

    Differs from the paper: commitment is a sum over the dimensions of z, not a mean, as the log-likelihood is over
    those of x; pieces, for encoders that give one vector.

    Args:
        in_shape: of the encoder's output, (C,) or (C, H, W).
        latent_dim: D.
        n_codes: K, in one codebook for all places and pieces.
        pieces: Q, codes at each place, each of D / Q dimensions.
        commitment: the weight beta of |v - sg(e)|^2 in the loss.
        decay: of the moving averages that are the codebook; None: it is learned by gradient, with the term
            |sg(v) - e|^2, and no code is restarted.
        restart_below: the fraction of the mean use below which a code is restarted (Dhariwal et al. 2020).

    Raises:
        ValueError: latent_dim or pieces below 1, or pieces that do not divide it; else as the codebooks.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        latent_dim: int,
        n_codes: int = 512,
        pieces: int = 1,
        commitment: float = 0.25,
        decay: float | None = 0.99,
        restart_below: float = 0.1,
    ) -> None:
        if pieces < 1 or latent_dim % pieces:
            raise ValueError(f"pieces must divide latent_dim, {latent_dim}, got {pieces}")
        super().__init__(in_shape, latent_dim, codes_at_places(in_shape, pieces, n_codes))
        dim = latent_dim // pieces
        self.codebook = make_codebook(n_codes, dim, commitment, decay, restart_below)
        self._pieces = (pieces, dim)

    def at_step(self, step: int, total_steps: int) -> None:
        self.codebook.at_step(step)

    def quantize(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        nearest = self.codebook(v.unflatten(-1, self._pieces))
        return straight_through(v, nearest.vectors.flatten(-2)), nearest.codes, nearest.penalty.sum(-1)

    def look_up(self, codes: Tensor) -> Tensor:
        return self.codebook.look_up(self.by_place(codes)).flatten(-2)


def make_codebook(n_codes: int, dim: int, commitment: float, decay: float | None, restart_below: float) -> Codebook:
    """One that moves, or with decay None one that is learned by gradient."""
    if decay is None:
        return Codebook(n_codes, dim, commitment)
    return MovingCodebook(n_codes, dim, commitment, decay, restart_below)

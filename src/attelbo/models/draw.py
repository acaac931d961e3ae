"""DRAW: an image is painted in T strokes, each from its own z, and read through a moving window.

Gregor et al. 2015, "DRAW: A Recurrent Neural Network For Image Generation", arXiv:1502.04623, eq. 3-17.

    for t = 1 .. T:
        r = read(x, x - E[x|c], h_dec)               c: canvas, (N, P C, H, W)
        h_enc = LSTM(h_enc, [r, h_dec]) --> q(z_t|x, z_1 .. z_{t-1}), normal        p(z_t) = N(0, I)
        h_dec = LSTM(h_dec, z_t);  c = c + write(h_dec)
    eta = c -- likelihood --> p(x|z_1 .. z_T)

A hierarchy with a layer for each stroke: the KL of each has a closed form, and the bound is that of any hierarchy.

Ours differs: any likelihood; the error image is x minus the mean of the likelihood at the canvas, which for a Bernoulli
is the paper's.

Shapes: K samples, B batch, N = K B rows, (C, H, W) image, P parameters for each of its dimensions, T strokes.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attelbo.attention.glimpses import GaussianWindow
from attelbo.building import Spec, part
from attelbo.checks import check_at_least, check_repetitions
from attelbo.data.batch import DataSpec
from attelbo.latent import Likelihood, Objective, StandardNormal
from attelbo.latent.arithmetic import full_precision
from attelbo.models.hierarchy import (
    Choice,
    Hierarchy,
    PosteriorMeans,
    parameters_of,
    prior_samples,
    split_normal,
)
from attelbo.models.parts import check_images, check_objective_of_terms, likelihood_of, model_arguments
from attelbo.networks.glimpses import LSTMStep, Reader, WholeReader, WholeWriter, WindowReader, WindowWriter, Writer
from attelbo.networks.layers import initialize


class Stroke(NamedTuple):
    """The state after a stroke."""

    canvas: Tensor
    """(N, P C, H, W)."""
    read: GaussianWindow | None
    """The window of the reading before it; None without a window or without x."""
    write: GaussianWindow | None
    """The window of the painting; None without a window."""


class DRAW(Hierarchy):
    """See :func:`build_draw` for how a configuration becomes one."""

    def __init__(
        self,
        reader: Reader,
        writer: Writer,
        likelihood: Likelihood,
        objective: Objective,
        latent_dim: int,
        hidden: int,
        strokes: int,
        optimizer: Spec,
        scheduler: Spec,
    ) -> None:
        super().__init__(likelihood, objective, strokes * latent_dim, optimizer, scheduler)
        self.layer_shapes = [(latent_dim,)] * strokes
        self.prior = StandardNormal((latent_dim,))
        self.reader = reader
        self.encoder = LSTMStep(reader.out_features + hidden, hidden)
        self.posterior = initialize(nn.Linear(hidden, 2 * latent_dim))
        self.decoder = LSTMStep(latent_dim, hidden)
        self.writer = writer
        self.blank = nn.Parameter(torch.zeros(likelihood.parameter_shape))
        # h and c before the first stroke.
        self.encoder_start = nn.Parameter(torch.zeros(2, hidden))
        self.decoder_start = nn.Parameter(torch.zeros(2, hidden))

    def bottom_up(self, x: Tensor) -> list[Tensor]:
        """x itself, since reading depends on the canvas."""
        return [x]

    def descend(self, n: int, choose: Choice, activations: list[Tensor] | None) -> Tensor:
        canvas = self.blank
        for stroke in self.strokes(n, choose, None if activations is None else activations[0]):
            canvas = stroke.canvas
        return canvas

    def strokes(self, n: int, choose: Choice, x: Tensor | None = None) -> Iterator[Stroke]:
        """T strokes on n canvases, with the z of each from ``choose``; q is given if x (n, C, H, W) is."""
        canvas = self.blank.expand(n, *self.blank.shape)
        encoder, decoder = _rows(self.encoder_start, n), _rows(self.decoder_start, n)
        for _ in self.layer_shapes:
            q = window = None
            if x is not None:
                error = x - self.likelihood.mean(canvas)
                seen, window = self.reader(torch.cat([x, error], 1), decoder[0])
                encoder = self.encoder(torch.cat([seen, decoder[0]], 1), encoder)
                q = split_normal(full_precision(self.posterior(encoder[0])))
            decoder = self.decoder(choose(q, self.prior), decoder)
            paint, place = self.writer(decoder[0])
            canvas = canvas + paint
            yield Stroke(canvas, window, place)

    def inference_parameters(self) -> list[nn.Parameter]:
        return [*parameters_of(self.reader, self.encoder, self.posterior), self.encoder_start]

    @torch.no_grad()
    def paint(self, n: int) -> list[Stroke]:
        """The strokes of n samples, of which the last canvas is what ``sample`` gives."""
        return list(self.strokes(n, prior_samples(n)))

    @torch.no_grad()
    def copy(self, x: Tensor) -> list[Stroke]:
        """The strokes of x (n, C, H, W), of which the last canvas is what ``reconstruct`` gives."""
        return list(self.strokes(len(x), PosteriorMeans(), x))


def _rows(state: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """(2, S) as h and c of n rows, (n, S) each."""
    h, c = state.unsqueeze(1).expand(2, n, -1)
    return h, c


def build_draw(
    data: DataSpec,
    likelihood: Spec,
    objective: Spec,
    latent_dim: int,
    hidden: int,
    strokes: int,
    read: int | None,
    write: int | None,
    optimizer: Spec,
    scheduler: Spec,
) -> DRAW:
    """Compose DRAW from its configuration.

    Args:
        data: what is known of the data: images.
        likelihood: of x.
        objective: made of the evidence terms alone.
        latent_dim: dimensions of the z of a stroke.
        hidden: units of each of the two LSTMs.
        strokes: T.
        read: side of the patch that is read; None: all pixels.
        write: side of the patch that is painted; None: all pixels.
        optimizer: its configuration.
        scheduler: the learning rate's.

    Raises:
        ConfigError: an argument is out of range, or two parts do not fit together.
    """
    channels, height, width = check_images(data, "DRAW")
    with model_arguments():
        check_at_least(1, latent_dim=latent_dim, hidden=hidden, read=read, write=write)
        check_repetitions(strokes=strokes)
    p = likelihood_of(likelihood, data)
    o = part("objective", objective)
    check_objective_of_terms(o, "a hierarchy")
    seen, painted, size = 2 * channels, p.parameter_shape[0], (height, width)
    return DRAW(
        reader=WholeReader(seen, size) if read is None else WindowReader(seen, size, read, hidden),
        writer=WholeWriter(painted, size, hidden) if write is None else WindowWriter(painted, size, write, hidden),
        likelihood=p,
        objective=o,
        latent_dim=latent_dim,
        hidden=hidden,
        strokes=strokes,
        optimizer=optimizer,
        scheduler=scheduler,
    )

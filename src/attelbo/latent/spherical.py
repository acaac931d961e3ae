"""The unit sphere: its area, and how far a von Mises-Fisher vector is from its mean direction.

The cosine w = <mu, z> of a von Mises-Fisher vector z in R^d has the density exp(kappa w) (1 - w^2)^((d - 3) / 2) up to
a constant that holds the Bessel function I_(d/2 - 1)(kappa) (Mardia & Jupp 2000, "Directional Statistics", sec. 9.3).
In y = artanh w and with m = d - 1 it is exp(kappa tanh y) / cosh(y)^m: smooth, with one mode, and of about the width
1 / sqrt(m) whatever kappa. With

    lambda = (m + sqrt(m^2 + 4 kappa^2)) / 2,    cos t* = kappa / lambda,    sin^2 t* = m / lambda

the mode is at the angle t*, and at the angle t the density is exp(-D) times that of the mode,

    D = lambda (1 - cos(t - t*)) + m (r - 1 - log r),    r = sin t / sin t*,

a sum of two terms that are not negative: nothing cancels, for any kappa from 0 on. So one grid in y - y*, the same for
all rows, gives everything: the normalizer and the moments by the trapezoidal rule, which converges exponentially for
such a function; the distribution function, and its derivative by kappa, by cumulated sums.

Shapes: n samples, B batch, Q grid points. Double precision throughout: it is cheap, and differences of cumulated sums
are needed.
"""

import math

import torch
from torch import Tensor

_TAIL = 20.0
"""The grid ends where the density has fallen to exp(-20) of that at the mode, for all kappa."""
_SPACING = 0.2
"""Of grid points, in standard deviations where the density is narrowest (kappa -> infinity)."""


def log_sphere_area(dim: int) -> float:
    """The logarithm of the area of the unit sphere in R^dim."""
    return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)


class CosineProfile:
    """The distribution of the cosine w for each row: normalizer, mean and samples, differentiable once by kappa.

    The normalizer and the mean are accurate to 1e-7, the distribution function to 1e-5 (relative, at worst: d = 2).

    Args:
        kappa: (B,), not negative.
        dim: d, at least 2.
    """

    log_mean_exp: Tensor
    """log E[exp(kappa (w - 1))] over the uniform distribution on the sphere, (B,): 0 at kappa = 0, then decreasing.

    The logarithm of Gamma(d/2) (2 / kappa)^(d/2 - 1) I_(d/2 - 1)(kappa) exp(-kappa)."""
    gap: Tensor
    """1 - E[w], (B,): from 1 at kappa = 0 towards (d - 1) / (2 kappa)."""

    def __init__(self, kappa: Tensor, dim: int) -> None:
        self.kappa = kappa
        m = dim - 1
        half_width = math.acosh(math.exp(_TAIL / m))  # cosh(y - y*)^-m, kappa = 0, falls off last
        n_cells = math.ceil(2 * half_width * math.sqrt(2 * m) / _SPACING)
        self._start, self._step = -half_width, 2 * half_width / n_cells
        with torch.no_grad():
            k = kappa.double().unsqueeze(-1)  # (B, 1)
            root = (m * m + 4 * k * k).sqrt()
            excess = 2 * k * k / (m + root)  # lambda - m
            lam = m + excess
            # tan(t* / 2), and the logarithm of the density at the mode, divided by exp(kappa)
            self._mode = (m / lam).sqrt() / (1 + k / lam)
            log_peak = -k * m / (lam * (1 + k / lam)) - 0.5 * m * (excess / m).log1p()

            offsets = torch.arange(n_cells + 1, dtype=k.dtype, device=k.device) * self._step + self._start  # y - y*
            q = self._mode * (-offsets).exp()  # tan(t / 2), (B, Q)
            scale = 1 / (1 + q * q)
            log_r = (scale * (1 + self._mode.square())).log() - offsets
            tangent = self._mode * torch.expm1(-offsets) / (1 + q * self._mode)  # tan((t - t*) / 2)
            square = tangent.square()
            density = (-2 * lam * square / (1 + square) - m * (torch.expm1(log_r) - log_r)).exp()
            total = density.sum(-1, keepdim=True)
            below_one = 2 * q * q * scale  # 1 - w
            gap = (density * below_one).sum(-1, keepdim=True) / total
            deviation = gap - below_one  # w - E[w]
            variance = (density * deviation.square()).sum(-1) / total.squeeze(-1)

            # The mass of the cells, by the trapezoidal rule with the derivative's correction (Euler & Maclaurin).
            weights = density / (total * self._step)
            slope = k * (2 * q * scale).square() - m * (1 - below_one)  # d log density / dy
            tilt = weights * deviation
            by_y = weights * (2 * q * scale).square() + tilt * slope
            self._density, self._below = weights, _cumulate(weights, weights * slope, self._step)
            self._tilt, self._tilt_below = tilt, _cumulate(tilt, by_y, self._step)

            log_uniform = math.lgamma(dim / 2) - math.lgamma(m / 2) - 0.5 * math.log(math.pi)
            log_mean_exp = (log_peak + total.log()).squeeze(-1) + math.log(self._step) + log_uniform
            gap = gap.squeeze(-1)
        self.log_mean_exp = _first_order(log_mean_exp, kappa, -gap)
        self.gap = _first_order(gap, kappa, -variance)

    def rsample(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """n samples of cos t, sin t and 1 - cos t for each row, (n, B) each: the inverse of the distribution function
        at uniform numbers, with the derivative by kappa that this has."""
        k, h = self.kappa, self._step
        with torch.no_grad():
            uniform = torch.rand((n, len(k)), dtype=k.dtype, device=k.device)
            level = uniform.mT.double().contiguous() * self._below[:, -1:]  # (B, n)
            cell = torch.searchsorted(self._below, level, right=True).sub(1).clamp(0, self._below.shape[-1] - 2)
            at, after = (lambda table: table.gather(-1, cell)), (lambda table: table.gather(-1, cell + 1))
            mass = after(self._below) - at(self._below)
            left, right = h * at(self._density), h * after(self._density)
            wanted = level - at(self._below)
            # The place in the cell if the density were linear there; then a Newton step with its slopes right as well.
            root = (left.square() + 2 * wanted * (right - left)).clamp(min=0).sqrt()
            place = (2 * wanted / (left + root)).clamp(0, 1)
            value, slope = _hermite(place, mass, left, right)
            place = (place - (value - wanted) / slope).clamp(0, 1)
            _, slope = _hermite(place, mass, left, right)
            tilt = at(self._tilt_below)
            rise, _ = _hermite(place, after(self._tilt_below) - tilt, h * at(self._tilt), h * after(self._tilt))
            y_by_kappa = -h * (tilt + rise) / slope  # -(dF / dkappa) / (dF / dy)
            q = self._mode * (-self._start - h * (cell + place)).exp()
            scale = 1 / (1 + q * q)
            sine, below_one = 2 * q * scale, 2 * q * q * scale
            sine, cosine, below_one, y_by_kappa = (t.mT for t in (sine, 1 - below_one, below_one, y_by_kappa))
        by_kappa = sine.square() * y_by_kappa  # dw / dkappa = (1 - w^2) dy / dkappa
        return (
            _first_order(cosine, k, by_kappa),
            _first_order(sine, k, -cosine * sine * y_by_kappa),
            _first_order(below_one, k, -by_kappa),
        )


def _first_order(value: Tensor, at: Tensor, slope: Tensor) -> Tensor:
    """The value, in the type of ``at``, with a given first derivative; second derivatives are zero."""
    return value.to(at.dtype) + slope.to(at.dtype) * (at - at.detach())


def _cumulate(f: Tensor, slope: Tensor, step: float) -> Tensor:
    """The integral of f up to each grid point, (B, Q), from its values and derivatives there."""
    cells = step / 2 * (f[:, :-1] + f[:, 1:]) + step**2 / 12 * (slope[:, :-1] - slope[:, 1:])
    return torch.nn.functional.pad(cells.cumsum(-1), (1, 0))


def _hermite(place: Tensor, rise: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The cubic from 0 at place 0 to ``rise`` at place 1 with these slopes there: its value and its slope."""
    bend = left + right - 2 * rise
    turn = 3 * rise - 2 * left - right
    return place * (left + place * (turn + place * bend)), left + place * (2 * turn + 3 * place * bend)

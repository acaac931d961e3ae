"""The spaces of latents: a posterior declares that of its z, a prior those on which it is a density.

A posterior and a prior are compatible if the prior lists the posterior's space (``Prior.spaces``); a normal prior over
codes, say, is refused before anything runs.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Space:
    """Where one z lives. ``shape`` is that of what the prior sees; a decoder may see something else (codes)."""

    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{type(self).__name__.lower()} of shape {self.shape}"


@dataclass(frozen=True)
class Real(Space):
    """Real numbers, density with respect to the volume."""

    def __str__(self) -> str:
        return f"{math.prod(self.shape)} real numbers"


@dataclass(frozen=True)
class Positive(Space):
    """Positive numbers, density with respect to the volume."""

    def __str__(self) -> str:
        return f"{math.prod(self.shape)} positive numbers"


@dataclass(frozen=True)
class Sphere(Space):
    """Unit vectors of R^D, ``shape`` (D,), density with respect to the area of the sphere."""

    def __str__(self) -> str:
        return f"unit vectors in {self.shape[0]} dimensions"


@dataclass(frozen=True)
class Ball(Space):
    """The Poincare ball of curvature -c, ``shape`` (D,); a point is written as its logarithmic map at the origin, of
    which any real numbers are one (``attelbo.latent.hyperbolic``). Density with respect to the hyperbolic volume."""

    curvature: float
    """c > 0."""

    def __str__(self) -> str:
        return f"points of a Poincare ball in {self.shape[0]} dimensions"


@dataclass(frozen=True)
class OneHot(Space):
    """One-hot vectors, ``shape`` (G, K): G choices among K, probability (or, relaxed, its surrogate)."""

    def __str__(self) -> str:
        return f"{self.shape[0]} choices among {self.shape[1]}"


@dataclass(frozen=True)
class Codes(Space):
    """Indices 0 .. ``n_codes`` - 1 at positions ``shape``, int64; probability."""

    n_codes: int
    n_codebooks: int = 1
    """More than one: the last dimension of ``shape`` indexes them, and the same index means different codes in each."""

    def __str__(self) -> str:
        return f"{math.prod(self.shape)} codes out of {self.n_codes:,}"


@dataclass(frozen=True)
class ScaledCodes(Codes):
    """The codes of maps of several scales, one after the other, ``shape`` (T,); each map is row by row."""

    sizes: tuple[tuple[int, int], ...] = ()
    """(height, width) of each, the coarsest first."""

    @classmethod
    def of(cls, sizes: tuple[tuple[int, int], ...], n_codes: int) -> "ScaledCodes":
        return cls((sum(map(math.prod, sizes)),), n_codes, sizes=sizes)


@dataclass(frozen=True)
class Product(Space):
    """Several spaces, flattened and concatenated: ``shape`` (D,)."""

    parts: tuple[Space, ...]

    def __str__(self) -> str:
        return " and ".join(map(str, self.parts))

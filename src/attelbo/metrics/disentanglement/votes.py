"""Scores by classification: rows that agree in one factor are drawn, and this factor is predicted from their codes.

- FactorVAE score: Kim & Mnih 2018, "Disentangling by Factorising", sec. 4.
- beta-VAE score: Higgins et al. 2017, "beta-VAE", sec. 3.

In the papers a simulator draws the rows; here they are drawn, with replacement, from those of a split that have the
same class. The other factors vary among them as they do in the split. If fewer rows share a class than a vote draws,
the classifier can memorize what these rows happen to have in common: codes of noise, which score at chance (0.2 for
five factors) with many rows, get 0.5 with six rows, and 0.4 with a hundred, of which 2.5 agree.

Shapes: N rows, D latent dimensions, F factors, V votes, L rows for each vote.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_NUMBERS_AT_ONCE = 2**22
"""32 MB of float64."""


def factor_vae_score(codes: Tensor, factors: Tensor, seed: int, n_votes: int = 800, n_rows: int = 200) -> float:
    """The share of votes that a majority vote classifier gets right: the latent that varies least among rows that agree
    in a factor, in units of its standard deviation, votes for that factor.

    The classifier learns from ``n_votes`` votes and is tested on as many others. Constant latents are left out.

    Args:
        codes: posterior means, (N, D).
        factors: classes, (N, F), int64.
        seed: of the draws.
        n_votes: V, 800 in the paper.
        n_rows: L, 200 in the paper.
    """
    generator = torch.Generator(codes.device).manual_seed(seed)
    codes = codes.double()
    scale = codes.var(0, correction=0)
    factor, rows = _agreeing(factors, 2 * n_votes, n_rows, generator)
    spread = _of_votes(codes, rows, lambda drawn: drawn.var(1, correction=0))  # (2 V, D)
    least = torch.where(scale > 0, spread / scale, torch.inf).argmin(1)
    learned, tried = (
        torch.bincount(d * factors.shape[1] + f, minlength=codes.shape[1] * factors.shape[1]).view(codes.shape[1], -1)
        for d, f in zip(least.split(n_votes), factor.split(n_votes), strict=True)
    )  # (D, F), votes
    return float(tried.gather(1, learned.argmax(1, keepdim=True)).sum() / n_votes)


def beta_vae_score(codes: Tensor, factors: Tensor, seed: int, n_votes: int = 2000, n_rows: int = 64) -> float:
    """The accuracy of a linear classifier that is given the mean of |z - z'| over pairs that agree in a factor.

    It learns from ``n_votes`` means and is tested on as many others.

    Differs from the paper: the classifier is a logistic regression on standardized inputs, fitted to convergence; all
    pairs of a mean agree in one value of the factor, where in the paper each pair has a value of its own.

    Args:
        codes: posterior means, (N, D).
        factors: classes, (N, F), int64.
        seed: of the draws.
        n_votes: the number of means to learn from.
        n_rows: pairs in each mean.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    generator = torch.Generator(codes.device).manual_seed(seed)
    factor, rows = _agreeing(factors, 2 * n_votes, 2 * n_rows, generator)
    pairs = _of_votes(codes.double(), rows, lambda drawn: drawn.unflatten(1, (2, -1)).diff(dim=1).abs().mean((1, 2)))
    (x, x_tried), (y, y_tried) = (t.cpu().numpy().reshape(2, n_votes, *t.shape[1:]) for t in (pairs, factor))
    return float(make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x, y).score(x_tried, y_tried))


def _of_votes(codes: Tensor, rows: Tensor, found: Callable[[Tensor], Tensor]) -> Tensor:
    """A function of the codes (v, L, D) of the rows (V, L), (V, D), for some votes at a time to bound memory."""
    at_once = max(1, _NUMBERS_AT_ONCE // (rows.shape[1] * codes.shape[1]))
    return torch.cat([found(codes[some]) for some in rows.split(at_once)])


def _agreeing(factors: Tensor, n_votes: int, n_rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """For each vote a factor, uniformly, and rows that share a class of it: that of a random row. (V,) and (V, L),
    int64.
    """
    device = factors.device
    factor = torch.randint(factors.shape[1], (n_votes,), generator=generator, device=device)
    chosen = torch.randint(len(factors), (n_votes,), generator=generator, device=device)
    place = torch.rand(n_votes, n_rows, generator=generator, device=device, dtype=torch.float64)
    rows = torch.empty(n_votes, n_rows, dtype=torch.int64, device=device)
    for f, classes in enumerate(factors.unbind(1)):
        by_class, order = classes.sort(stable=True)
        votes = (factor == f).nonzero().view(-1)
        value = classes[chosen[votes]]
        start, stop = torch.searchsorted(by_class, value), torch.searchsorted(by_class, value, right=True)
        rows[votes] = order[(start.unsqueeze(1) + place[votes] * (stop - start).unsqueeze(1)).long()]
    return factor, rows

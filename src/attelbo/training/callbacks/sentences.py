"""What a model of texts with latent variables has learned: samples, reconstructions, paths between texts.

Shapes: n texts, D numbers of z, S steps of a path.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from attelbo.checks import check_at_least, check_not_negative
from attelbo.models import TextVAE
from attelbo.models.generation import Sampling
from attelbo.training.callbacks.exhibit import Exhibit, ExhibitedData, ExhibitOptions


class Sentences(Exhibit):
    """``samples``, ``reconstructions`` and ``interpolations`` of a text VAE.

    Args:
        n: samples, and reconstructions.
        n_paths: pairs of texts with the texts between them.
        steps: S, texts of a path, its ends among them.
        temperature: of the samples, divides the logits; 0: always the likeliest token, as in the other works.
        options: see :class:`ExhibitOptions`.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        n: int = 10,
        n_paths: int = 3,
        steps: int = 7,
        temperature: float = 1.0,
        **options: Unpack[ExhibitOptions],
    ) -> None:
        super().__init__(**options)
        check_at_least(1, n=n, n_paths=n_paths)
        check_at_least(2, steps=steps)
        check_not_negative(temperature=temperature)
        self.n = n
        self.n_paths = n_paths
        self.steps = steps
        self.temperature = temperature

    def serves(self, model: nn.Module, data: ExhibitedData) -> bool:
        return isinstance(model, TextVAE) and hasattr(data, "tokenizer")

    def works(self, model: TextVAE, data: Any) -> dict[str, str]:
        samples = texts_of(model.sample(self.n, sampling=Sampling(self.temperature)), data)
        shown = self.rows(data, self.n, model.device).x
        ends = self.rows(data, 2 * self.n_paths, model.device).x
        start, end = model.encode(ends).chunk(2)
        positions = torch.linspace(0, 1, self.steps, device=start.device)
        z = torch.stack([torch.lerp(start, end, position) for position in positions], 1)
        return {
            "samples": lines(samples),
            "reconstructions": reconstructions(model, data, shown),
            "interpolations": paths(model, data, ends, z),
        }


def texts_of(tokens: Tensor, data: Any) -> list[str]:
    """What tokens (n, U) say, on one line each."""
    return [" ".join(data.tokenizer.decode(row).split("\n")) for row in tokens.tolist()]


def lines(texts: Iterable[str]) -> str:
    """A text on each line."""
    return "".join(f"{text}\n" for text in texts)


def reconstructions(model: TextVAE, data: Any, x: Tensor) -> str:
    """Each text x (n, T) with its reconstruction below it."""
    pairs = zip(texts_of(x, data), texts_of(model.reconstruct(x), data), strict=True)
    return "\n".join(_named([("text", text), ("reconstruction", written)]) for text, written in pairs)


def paths(model: TextVAE, data: Any, ends: Tensor, z: Tensor) -> str:
    """What z (n, S, D) say, between the texts that they go from and to: ends (2 n, T), first those, then these."""
    n, steps, _ = z.shape
    written = texts_of(model.generate(z.flatten(0, 1)), data)
    texts = texts_of(ends, data)
    blocks = []
    for i in range(n):
        between = [(f"{step / (steps - 1):.2f}", written[i * steps + step]) for step in range(steps)]
        blocks.append(_named([("from", texts[i]), *between, ("to", texts[n + i])]))
    return "\n".join(blocks)


def _named(rows: Sequence[tuple[str, str]]) -> str:
    """Lines of a name and a text, one below the other."""
    width = max(len(name) for name, _ in rows)
    return "".join(f"{name:>{width}}  {text}\n" for name, text in rows)

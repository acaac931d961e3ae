"""``attelbo sample | reconstruct | interpolate`` for models of texts: printed, and written into ``media/`` of the run.

Shapes: n texts (n, T), D numbers of z, S steps of a path.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from torch import Tensor

from attelbo.data.padded import pad_rows
from attelbo.errors import UserError
from attelbo.experiments.sampled import in_groups
from attelbo.experiments.trained import Trained, marks, print_written, refuse
from attelbo.files import write_atomically
from attelbo.models import TextVAE
from attelbo.models.generation import Sampling
from attelbo.training.callbacks.sentences import lines, paths, reconstructions, texts_of

N_TEXTS = 10
_DRAWN_BY = [field.name for field in fields(Sampling)]
"""Options of how a token is drawn."""


def write_samples(trained: Trained, n: int | None, seed: int, output: str | None, options: Mapping[str, Any]) -> None:
    """n texts, z from the prior, each token drawn given those before it.

    Args:
        trained: a text VAE.
        n: how many; 10 if None.
        seed: what the draw was seeded with.
        output: the file; ``samples-n<n>-seed<seed>.txt`` if None, the options in its name.
        options: those of ``Sampling`` where they are given, and others, which are refused.

    Raises:
        ConfigError: a number is out of range, or an option is for language models.
    """
    known = {name: options[name] for name in _DRAWN_BY if options[name] is not None}
    why = f"{trained.described}: its texts begin as z has it"
    refuse(why, **{name: value for name, value in options.items() if name not in _DRAWN_BY})
    n = N_TEXTS if n is None else n
    model, data = _parts_of(trained)
    sampling = Sampling(**known)
    texts = [text for places in in_groups(n) for text in texts_of(model.sample(len(places), sampling=sampling), data)]
    _publish(trained, lines(texts), output, f"samples-n{n}-seed{seed}{marks(**known)}.txt", f"{n} samples")


def write_reconstructions(trained: Trained, x: Tensor, output: str | None, name: str) -> None:
    """Each text x (n, T), and the likeliest tokens at the center of its posterior."""
    model, data = _parts_of(trained)
    _publish(trained, reconstructions(model, data, x), output, name, f"{len(x)} texts with their reconstructions")


def write_paths(trained: Trained, ends: Tensor, z: Tensor, output: str | None, name: str) -> None:
    """The texts of z (n, S, D), between those that the paths go from and to: ends (2 n, T), first the starts."""
    model, data = _parts_of(trained)
    what = "a path" if len(z) == 1 else f"{len(z)} paths"
    _publish(trained, paths(model, data, ends, z), output, name, f"{what} of {z.shape[1]} texts")


def typed_rows(trained: Trained, texts: Sequence[str]) -> Tensor:
    """Texts that are in no split as the model reads them, (n, T).

    Raises:
        UserError: one is too long, or not all of it is in the vocabulary.
    """
    _, data = _parts_of(trained)
    rows = [data.read(text) for text in texts]
    for text, row in zip(texts, rows, strict=True):
        if (seen := data.tokenizer.decode(row)) != data.tokenizer.written(text):
            raise UserError(
                f"{text!r} is not all in the vocabulary of {data.tokenizer.n_tokens:,} tokens: the model would read "
                f"{seen!r}"
            )
    return pad_rows(rows)[0].long().to(trained.device)


def _parts_of(trained: Trained) -> tuple[TextVAE, Any]:
    """The model, and its data, which can write."""
    assert isinstance(trained.model, TextVAE)
    if not hasattr(trained.data, "tokenizer"):
        raise UserError(f"{trained.data.spec.name} has tokens without letters: there is no text to show")
    return trained.model, trained.data


def _publish(trained: Trained, text: str, output: str | None, name: str, what: str) -> None:
    file = trained.path(output, name)
    sys.stdout.write(text)
    print_written(what, write_atomically(file, text))

"""``attelbo translate``: translations of sentences by a trained sequence-to-sequence model.

Shapes: B sentences, S tokens of the longest.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from attelbo.checks import check_at_least
from attelbo.data import ParallelDataModule
from attelbo.data.batch import BOS, EOS, PAD
from attelbo.errors import ConfigError, UserError
from attelbo.experiments.terminal import lines_of_input
from attelbo.experiments.trained import Accelerator, Trained, Which, print_written, refuse, writable
from attelbo.models import SequenceToSequence
from attelbo.training.maps import alignment_map
from attelbo.training.media import Picture, save_png

CHUNK = 64
"""Sentences that are translated at a time."""


class Translator(Trained):
    """A sequence-to-sequence model with the vocabularies of its data."""

    model: SequenceToSequence
    data: ParallelDataModule

    @classmethod
    def of(cls, run: str, checkpoint: Which, accelerator: Accelerator, data_dir: str | None = None) -> "Translator":
        """Load a run; no sentence of its data is read.

        Raises:
            UserError: not a run directory, no checkpoint in it, or a model that does not translate.
        """
        trained = super().of(run, checkpoint, accelerator, data_dir)
        if not (isinstance(trained.model, SequenceToSequence) and isinstance(trained.data, ParallelDataModule)):
            raise UserError(f"{trained.described}: it does not translate")
        return trained

    def translate(
        self, sources: Sequence[list[int]], beam: int | None, length_penalty: float | None, max_length: int | None
    ) -> list[list[int]]:
        """The tokens of their translations, without BOS and EOS."""
        found: list[list[int]] = []
        for first in range(0, len(sources), CHUNK):
            chunk = sources[first : first + CHUNK]
            longest = max(map(len, chunk))
            padded = [[*source, *[PAD] * (longest - len(source))] for source in chunk]
            batch = torch.tensor(padded, device=self.device)
            found += self.model.translate(batch, beam=beam, length_penalty=length_penalty, max_length=max_length)
        return found

    def alignment(self, source: list[int], found: list[int], title: str, heads: bool) -> Picture:
        """Which tokens of a source, BOS and EOS among them, the model looks at for each token that it found: in the
        mean over heads, or a panel for each of them.

        Raises:
            UserError: it has no attention to the source.
        """
        both = torch.tensor([source], device=self.device), torch.tensor([[BOS, *found]], device=self.device)
        weights = self.model.alignment(*both, heads)[0]  # (U, S) or (N, U, S), the last row predicts EOS
        read, write = self.data.tokenizer.tokens, self.data.target_tokenizer.tokens
        target = [write[token] for token in (*found, EOS)]
        panels = [f"head {head}" for head in range(1, len(weights) + 1)] if heads else []
        return alignment_map(weights, [read[token] for token in source], target, title, panels)


def translate(
    run: str,
    text: str | None,
    beam: int | None,
    length_penalty: float | None,
    max_length: int | None,
    map: str | None,
    accelerator: Accelerator,
    checkpoint: Which,
    heads: bool = False,
) -> None:
    """Print the translation of a sentence, or of each line of the standard input; lines without a token stay empty.

    Args:
        run: the run directory, or a folder, for its newest run.
        text: the sentence; the standard input if None.
        beam: hypotheses that the search keeps, 1: the greedy search; as in the model's evaluation if None.
        length_penalty: how much longer translations are favoured, see ``attelbo.networks.beam_search``; as in the
            model's evaluation if None.
        max_length: the most tokens of a translation; as many as the model allows if None.
        map: a PNG file for which source tokens the model looks at for each token of the translation; of several
            sentences ``<name>-1.png`` and so on.
        accelerator: where to compute.
        checkpoint: which weights.
        heads: whether the map has a panel for each head of the last layer, in place of their mean.

    Raises:
        UserError: not a run directory, no checkpoint in it, a model that does not translate or, for a map, has no
            attention, or a sentence that it cannot read.
        ConfigError: a number is out of range, the map cannot be written, or there is nothing to translate.
    """
    check_at_least(1, ConfigError, beam=beam, max_length=max_length)
    if map is None:
        refuse("there is no map that could show them: map=a.png draws one", heads=heads)
    path = None if map is None else writable("map", Path(map), ".png")
    translator = Translator.of(run, checkpoint, accelerator)
    if path is not None:
        translator.model.check_aligns()
    sentences = [text] if text is not None else lines_of_input()
    sources = [translator.data.read(sentence) for sentence in sentences]
    full = [source for source in sources if len(source) > 2]
    if not full and text is not None:
        raise ConfigError(f"text={text!r}: there is nothing in it to translate")
    if not full:
        refuse("there is no text whose translation could be looked at", map=map)
    found = iter(translator.translate(full, beam, length_penalty, max_length))
    translations = [next(found) if len(source) > 2 else [] for source in sources]
    for tokens in translations:
        sys.stdout.write(f"{translator.data.target_tokenizer.decode(tokens)}\n")
    if path is None:
        return
    for number, (sentence, source, tokens) in enumerate(zip(sentences, sources, translations, strict=True), 1):
        if len(source) > 2:
            picture = translator.alignment(source, tokens, sentence, heads)
            print_written(
                "map", save_png(picture, path if len(sentences) == 1 else path.with_stem(f"{path.stem}-{number}"))
            )

"""What a language model writes, and how it answers.

Shapes: n rows, T tokens.
"""

from collections.abc import Iterable
from typing import Any, Unpack, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from attelbo.checks import check_at_least, check_not_negative
from attelbo.data.batch import BOS, PAD
from attelbo.data.text import Tokenizer
from attelbo.errors import DataError
from attelbo.models import LanguageModel
from attelbo.training.callbacks.exhibit import Exhibit, ExhibitedData, ExhibitOptions

RULE = "-" * 40
"""Between two texts."""
N_FIRST = 16
"""Tokens of each row that the model continues, or as many as the shortest row has."""


class TextSamples(Exhibit):
    """``samples``: texts that a causal language model writes after a prompt.

    Args:
        n: texts.
        length: tokens of each, the prompt not among them; what the model no longer sees is forgotten.
        prompt: the beginning of all of them; each the first tokens of another row if None.
        temperature: divides the logits; 0: always the likeliest token.
        options: see :class:`ExhibitOptions`.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        n: int = 3,
        length: int = 400,
        prompt: str | None = None,
        temperature: float = 0.8,
        **options: Unpack[ExhibitOptions],
    ) -> None:
        super().__init__(**options)
        check_at_least(1, n=n, length=length)
        check_not_negative(temperature=temperature)
        self.n = n
        self.length = length
        self.prompt = prompt
        self.temperature = temperature

    def serves(self, model: nn.Module, data: ExhibitedData) -> bool:
        return isinstance(model, LanguageModel) and model.causal and hasattr(data, "tokenizer")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a prompt that cannot be read before the training begins."""
        data = cast(Any, trainer).datamodule
        if self.prompt is not None and self.serves(pl_module, data):
            first_tokens(data.tokenizer, self.prompt)

    def works(self, model: LanguageModel, data: Any) -> dict[str, str]:
        if self.prompt is None:
            rows = self.rows(data, self.n, model.device).x
            there = rows != PAD if data.spec.pads else torch.ones_like(rows, dtype=torch.bool)
            prompt = rows[:, : min(N_FIRST, int(there.sum(1).min()))]
        else:
            prompt = torch.tensor([first_tokens(data.tokenizer, self.prompt)] * self.n, device=model.device)
        written = model.generate(prompt, self.length, temperature=self.temperature, truncate=True)
        return {"samples": joined(data.tokenizer.decode(row) for row in written.tolist())}


class Answers(Exhibit):
    """``answers``: rows of a task, the right answer and the model's, each token given the right ones before.

    Args:
        n: rows.
        options: see :class:`ExhibitOptions`.

    Raises:
        ValueError: n is below 1, or every_n_epochs negative.
    """

    def __init__(self, n: int = 10, **options: Unpack[ExhibitOptions]) -> None:
        super().__init__(**options)
        check_at_least(1, n=n)
        self.n = n

    def serves(self, model: nn.Module, data: ExhibitedData) -> bool:
        return isinstance(model, LanguageModel) and data.spec.answer_length is not None

    def works(self, model: LanguageModel, data: ExhibitedData) -> dict[str, str]:
        batch = self.rows(data, self.n, model.device)
        assert batch.y is not None
        said = model(batch.x, batch.segments, model.drawn(batch).prefix).argmax(-1)
        rows = zip(batch.x, batch.y, said, strict=True)
        return {"answers": "\n".join(_compared(*row) for row in rows)}


def first_tokens(tokenizer: Tokenizer, prompt: str | None = None) -> list[int]:
    """The tokens that a text begins with: BOS where the vocabulary has it, then those of a prompt. Without either, a
    line break: the model needs something to continue.

    Raises:
        DataError: something in the prompt is not in the vocabulary, or there is no token in it.
    """
    begin, otherwise = ([BOS], "") if tokenizer.pads else ([], "\n")
    text = otherwise if prompt is None else prompt
    try:
        tokens = [*begin, *tokenizer.encode(text)]
    except DataError as error:
        raise DataError(f"prompt: {error}") from None
    if not tokens:
        raise DataError(f"prompt: there is no token in {text!r}")
    return tokens


def joined(texts: Iterable[str]) -> str:
    """Texts below each other."""
    return f"\n{RULE}\n".join(texts) + "\n"


def _compared(x: Tensor, y: Tensor, said: Tensor) -> str:
    """The tokens of a row, those that are to be predicted, and those that are."""
    asked = y >= 0
    right = "right" if torch.equal(y[asked], said[asked]) else "wrong"
    lines = (("row", x), ("answer", y[asked]), (right, said[asked]))
    return "".join(f"{name:>7}  {' '.join(map(str, tokens.tolist()))}\n" for name, tokens in lines)

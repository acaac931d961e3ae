"""``attelbo predict``: the classes of texts and pictures, and -log p of texts under a language model.

Shapes: N rows, Y classes, T tokens.
Units: nats; bits per character.
"""

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attelbo.data import IGNORE, Batch, ImageDataModule, TextClassificationDataModule
from attelbo.data.batch import BOS, EOS
from attelbo.data.padded import pad_rows
from attelbo.data.text import LabelledCSV
from attelbo.data.text.files import read_lines
from attelbo.data.text.streams import windows_of
from attelbo.errors import ConfigError, DataError, UserError
from attelbo.experiments.evaluation import SplitName
from attelbo.experiments.evaluation.splits import batches, evaluated
from attelbo.experiments.own_rows import own_rows
from attelbo.experiments.terminal import lines_of_input
from attelbo.experiments.trained import Accelerator, Trained, Which, print_written
from attelbo.files import csv_text, write_atomically
from attelbo.models import Classifier, LanguageModel, SemiSupervisedVAE, SequenceToSequence
from attelbo.training.callbacks.texts import first_tokens
from attelbo.training.maps import shown_token

SHOWN = 3
"""Classes that are printed of each text or picture, the likeliest first."""


def predict(
    run: str,
    text: str | None,
    path: str | None,
    split: SplitName | None,
    output: str | None,
    accelerator: Accelerator,
    checkpoint: Which,
    data_dir: str | None = None,
) -> None:
    """Print the likeliest classes of texts or pictures, or -log p of texts; write those of a split.

    A language model predicts as in evaluation: in windows of ``data.context`` tokens, each token once. What precedes a
    text is not predicted, BOS or a line break; its end is, where the vocabulary has EOS.

    Args:
        run: the run directory, or a folder, for its newest run.
        text: a text; of a language model each of its tokens is printed.
        path: a file of texts, one a line, or where the data are a CSV, one like it, of which the column of texts is
            read; a picture, or a folder of them, cut to the shape of the data; a file of arrays like that of the run.
        split: train, validation or test. Of ``text``, ``path`` and ``split`` one at most: without any, texts are the
            lines of the standard input.
        output: a CSV file. Of classes it holds the probability of each; of a language model, for texts the nats of each
            token, for a split those of each row. If None, ``media/predictions-<split>.csv`` for a split, else no file.
        accelerator: where to compute.
        checkpoint: which weights.
        data_dir: where the data of the split are now, if not where they were.

    Raises:
        UserError: not a run directory, no checkpoint in it, a model that predicts neither classes nor tokens, or a text
            or picture that it cannot read.
        ConfigError: more than one source, one that is for another kind of model, or a file that cannot be written.
    """
    given = {"text": text, "path": path, "split": split}
    named = [f"{name}={value}" for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise ConfigError(f"{named[1]}: one of text, path and split; there is {named[0]} already")
    trained = Trained.of(run, checkpoint, accelerator, data_dir)
    if not isinstance(trained.model, Classifier | SemiSupervisedVAE | LanguageModel):
        remedy = "; attelbo translate has what it makes of a text" * isinstance(trained.model, SequenceToSequence)
        raise UserError(f"{trained.described}: it predicts neither classes nor tokens{remedy}")
    file = None if output is None and split is None else trained.path(output, f"predictions-{split}.csv")
    classifies = not isinstance(trained.model, LanguageModel)
    if split is not None:
        trained.with_data()
        table = _classes_of_split(trained, split) if classifies else _nats_of_split(trained, split)
    elif isinstance(trained.data, ImageDataModule):
        table = _classes_of(trained, *_images(trained, text, path))
    elif classifies:
        texts = _texts(trained, text, path)
        table = _classes_of(trained, "text", texts, _token_rows(trained, texts))
    else:
        table = _nats_of_texts(trained, _texts(trained, text, path), each=text is not None)
    if file is not None:
        print_written(f"{len(table.rows):,} {table.what}", write_atomically(file, csv_text([table.head, *table.rows])))


class Table(NamedTuple):
    """What is written into a file."""

    what: str
    """What its rows are, in the plural."""
    head: list[str]
    rows: list[list[Any]]


# -- what is to be predicted


def _texts(trained: Trained, text: str | None, path: str | None) -> list[str]:
    if text is not None:
        return [text]
    if path is None:
        return lines_of_input()
    if not Path(path).is_file():
        raise ConfigError(f"path={path}: no such file of texts, one a line")
    source = getattr(trained.data, "source", None)
    if isinstance(source, LabelledCSV) and Path(path).suffix.lower() == ".csv":
        return source.texts(Path(path))
    return read_lines(Path(path))


def _images(trained: Trained, text: str | None, path: str | None) -> tuple[str, list[str], Sequence[Tensor]]:
    """What they are, their names, and the rows (N, C, H, W) or (N, D), some at a time."""
    names, x = own_rows(trained, path if text is None else None)
    return "row" if names and names[0] == "0" else "picture", names, x.split(trained.data.eval_batch_size)


def _token_rows(trained: Trained, texts: Sequence[str]) -> list[Tensor]:
    """Texts as a classifier reads them, (N, T), some at a time."""
    data = trained.data
    assert isinstance(data, TextClassificationDataModule)
    rows = [_told(data.read, texts, number) for number in range(len(texts))]
    size = data.eval_batch_size
    return [pad_rows(rows[first : first + size])[0].long() for first in range(0, len(rows), size)]


def _told(read: Any, texts: Sequence[str], number: int) -> list[int]:
    """The tokens of a text; an error names it, by its line where there are several."""
    try:
        return read(texts[number])
    except UserError as error:
        raise type(error)(f"{f'line {number + 1:,}' if len(texts) > 1 else 'text'}: {error}") from error


def _rows(trained: Trained, split: SplitName) -> Iterator[Batch]:
    data, of = trained.data, evaluated(split)
    return batches(data, of, data.n_rows(of), data.eval_batch_size, trained.device)


# -- classes


def _classes_of(trained: Trained, what: str, names: Sequence[str], parts: Iterable[Tensor]) -> Table:
    """The likeliest classes of each, printed, and all of them."""
    classes, table = trained.data.class_names or (), Table(f"{what}s", [], [])
    width = max(map(len, classes))
    for x in parts:
        probabilities = _probabilities(trained, x.to(trained.device)).cpu()
        best = probabilities.topk(min(SHOWN, len(classes)))
        for row, likely, places in zip(
            probabilities.tolist(), best.values.tolist(), best.indices.tolist(), strict=True
        ):
            name = names[len(table.rows)]
            shown = "  ".join(f"{classes[c]:<{width}} {p:.4f}" for c, p in zip(places, likely, strict=True))
            sys.stdout.write(f"{shown}  {name}\n")
            table.rows.append([name, classes[places[0]], *map(_number, row)])
    return table._replace(head=[what, "prediction", *map(_column, classes)])


def _classes_of_split(trained: Trained, split: SplitName) -> Table:
    """The class of each row of a split, the predicted one, and the probability of each class."""
    classes = trained.data.class_names
    if classes is None:
        raise UserError(f"{trained.described}: its rows have no classes")
    rows: list[list[Any]] = []
    for batch in _rows(trained, split):
        assert batch.y is not None
        probabilities = _probabilities(trained, batch.x)
        columns = batch.index, batch.y, probabilities.argmax(-1), probabilities
        for index, y, found, row in zip(*(column.tolist() for column in columns), strict=True):
            rows.append([index, classes[y], classes[found], *map(_number, row)])
    return Table(f"{split} rows", ["row", "label", "prediction", *map(_column, classes)], rows)


def _probabilities(trained: Trained, x: Tensor) -> Tensor:
    """p(y|x), (B, Y)."""
    assert isinstance(trained.model, Classifier | SemiSupervisedVAE)
    return trained.model.classify(x)


def _column(name: str) -> str:
    return f"p({name})"


# -- language models


def _nats_of_split(trained: Trained, split: SplitName) -> Table:
    """Of each row of a split its predicted tokens, their nats and, where known, their bits per character."""
    model, data = trained.model, trained.data
    assert isinstance(model, LanguageModel)
    rows: list[list[Any]] = []
    for batch in _rows(trained, split):
        nats, y = (column.cpu() for column in model.surprise(batch))
        sums = nats.double().sum(1)
        columns = batch.index, (y >= 0).sum(1), sums
        for index, n, total, bits in zip(
            *(column.tolist() for column in columns), _bits(trained, sums, y), strict=True
        ):
            rows.append([index, n, _number(total), *([] if bits is None else [_number(bits)])])
    head = ["row", "tokens", "nats", *([] if data.spec.token_lengths is None else ["bits_per_character"])]
    return Table(f"{split} rows", head, rows)


def _nats_of_texts(trained: Trained, texts: Sequence[str], each: bool) -> Table:
    """Print -log p of each text, and of each token of a single text; the table has each token of all of them."""
    model = trained.model
    data: Any = trained.data  # with a tokenizer, where there are texts
    assert isinstance(model, LanguageModel)
    if not model.causal:
        raise UserError(f"{trained.described}: it sees all of a row (model.causal=false), and predicts no text")
    if not hasattr(data, "tokenizer"):
        raise UserError(f"{data.spec.name} has tokens without letters: it reads no text; split=test has its rows")
    whole = [_told(lambda text: _whole(data.tokenizer, text), texts, number) for number in range(len(texts))]
    costs = iter(_nats(trained, whole).split([max(len(tokens) - 1, 0) for tokens in whole]))
    table = Table("tokens", ["text", "place", "token", "nats"], [])
    lines = []
    for number, (text, all_tokens, nats) in enumerate(zip(texts, whole, costs, strict=True), 1):
        tokens = all_tokens[1:]
        written = [data.tokenizer.tokens[token] for token in tokens]
        table.rows.extend(
            [number, place, token, _number(cost)]
            for place, (token, cost) in enumerate(zip(written, nats.tolist(), strict=True), 1)
        )
        (bits,) = _bits(trained, nats.double().sum().view(1), torch.tensor([tokens], dtype=torch.int64))
        total, n = float(nats.double().sum()), len(tokens)
        shown = f"{total:>10.3f} {n:>7,} {total / n if n else math.nan:>11.4f} " + (
            "" if bits is None else f"{bits:>15.4f} "
        )
        lines.append(f"{shown} {text}\n")
    if each:
        sys.stdout.write(
            "".join(f"{float(cost):>10.3f}  {shown_token(token)}\n" for *_, token, cost in table.rows) + "\n"
        )
    bits_column = "" if data.spec.token_lengths is None else f"{'bits/character':>15} "
    sys.stdout.write(f"{'nats':>10} {'tokens':>7} {'nats/token':>11} {bits_column} text\n{''.join(lines)}")
    return table


def _whole(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text, with BOS or a line break before them, and EOS after them where the vocabulary has it."""
    if tokenizer.pads:
        return [BOS, *tokenizer.encode(text), EOS]
    try:
        first = first_tokens(tokenizer)
    except DataError:  # no line break in the vocabulary: nothing comes before the text's own first token
        return tokenizer.encode(text)
    return [*first, *tokenizer.encode(text)]


def _nats(trained: Trained, texts: Sequence[Sequence[int]]) -> Tensor:
    """-log p of all tokens but the first of each text, one text after the other, on the CPU."""
    model = trained.model
    data: Any = trained.data
    assert isinstance(model, LanguageModel)
    rows = [row for tokens in texts for row in windows_of(tokens, data.context)]
    costs = [torch.zeros(0)]
    for first in range(0, len(rows), data.eval_batch_size):
        some = rows[first : first + data.eval_batch_size]
        x, lengths = pad_rows([x for x, _ in some])
        there = torch.arange(x.shape[1]) < lengths.unsqueeze(1)
        y = pad_rows([y for _, y in some])[0].long().masked_fill(~there, IGNORE)
        moved = (each.to(trained.device) for each in (x.long(), y, torch.arange(len(some))))
        costs.append(model.surprise(Batch(*moved))[0].cpu()[there])
    return torch.cat(costs)


def _bits(trained: Trained, nats: Tensor, y: Tensor) -> list[float | None]:
    """Bits per character of rows whose tokens y (B, K) cost ``nats`` (B,) together; None where not known."""
    lengths = trained.data.spec.token_lengths
    if lengths is None:
        return [None] * len(nats)
    characters = torch.tensor(lengths, dtype=torch.float64)[y.clamp(min=0)].masked_fill(y < 0, 0).sum(1)
    return (nats / (math.log(2) * characters)).tolist()


# -- what is written


def _number(value: float) -> str:
    return f"{value:.7g}"

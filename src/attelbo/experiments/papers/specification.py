"""A paper's table, and what must be run to rebuild it: ``conf/paper/<name>/paper.yaml``.

    title, source                          the paper
    metric, better, tolerance              what its numbers are, which is better, how near is near enough
    words                                  of the command line, for all cells
    cells: name -> words, published value, source, trust; metric, better, tolerance in place of the paper's
    best_of                                words: each cell is run with every one, the best in validation counts
    budgets: smoke | quick | full -> words; seeds of each
    order                                  cells whose values must get better in this order
    also, pairs, costs                     further lines below the table

A published value has a trust mark: A, read in the paper or in its authors' (or a re-implementation's) own repository;
B, quoted elsewhere. What is known from memory only is not a published value.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from attelbo.errors import ConfigError
from attelbo.experiments.listing import config_folders, description, nearest_of
from attelbo.experiments.origins import COMMAND_LINE, read_config_file

Budget = Literal["smoke", "quick", "full"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Cell(_Strict):
    """One number of a table."""

    words: list[str] = []
    title: str = ""
    """As the paper calls it; the cell's name if empty."""
    published: float | None = None
    trust: Literal["A", "B"] | None = None
    source: str = ""
    """Of the value, where it is not the paper's table."""
    tolerance: float | None = Field(default=None, gt=0)
    """In place of the paper's."""
    metric: str | None = None
    """In place of the paper's."""
    better: Literal["more", "less"] | None = None
    """Of that metric, in place of the paper's."""

    @model_validator(mode="after")
    def _trusted(self) -> "Cell":
        if (self.published is None) != (self.trust is None):
            raise ValueError("a published value and its trust mark (A or B) go together")
        return self


class Effort(_Strict):
    """A budget."""

    words: list[str] = []
    seeds: int = Field(default=1, ge=1)
    note: str = ""
    """What it is, in words: epochs, rows, samples."""


class Paper(_Strict):
    """The table of a paper."""

    title: str
    source: str
    metric: str
    unit: str = ""
    digits: int = Field(default=2, ge=0)
    better: Literal["more", "less"]
    tolerance: float | None = Field(default=None, gt=0)
    words: list[str] = []
    cells: dict[str, Cell]
    budgets: dict[Budget, Effort]
    order: list[str] = []
    best_of: list[str] = []
    """Such as learning rates that the paper chose from."""
    also: list[str] = []
    """Further metrics, listed below the table."""
    pairs: list[tuple[str, str]] = []
    """Cells that are compared seed by seed."""
    costs: bool = False
    """Whether parameters and arithmetic of each cell are listed too."""
    note: str = ""
    """What must be known to read the numbers: splits, traps."""

    @model_validator(mode="after")
    def _whole(self) -> "Paper":
        if not self.cells or set(self.budgets) != {"smoke", "quick", "full"}:
            raise ValueError("a paper has at least one cell, and the budgets smoke, quick and full")
        if unknown := [name for name in self.order if name not in self.cells]:
            raise ValueError(f"order: {', '.join(unknown)}: no such cell")
        if unknown := [name for pair in self.pairs for name in pair if name not in self.cells]:
            raise ValueError(f"pairs: {', '.join(unknown)}: no such cell")
        return self

    def jobs(
        self, cell: str, budget: Budget, seeds: int, given: Sequence[str] = (), choice: str | None = None
    ) -> list[list[str]]:
        """The words of each seed's run: the paper's, the cell's, the choice from ``best_of``, the budget's, those that
        are given; of two for one key the later counts.
        """
        chosen = [] if choice is None else [choice]
        every = (*self.words, *self.cells[cell].words, *chosen, *self.budgets[budget].words, *given)
        words = {_key(word): word for word in every}
        return [[*words.values(), f"seed={seed}"] for seed in range(seeds)]

    def choices(self, budget: Budget, given: Sequence[str] = ()) -> list[str | None]:
        """The choices that each cell is run with: every word of ``best_of`` that neither the budget nor a given word
        overrides, or none."""
        decided = set(map(_key, (*self.budgets[budget].words, *given)))
        return [word for word in self.best_of if _key(word) not in decided] or [None]

    def title_of(self, cell: str) -> str:
        """The title of a cell."""
        return self.cells[cell].title or cell

    def metric_of(self, cell: str) -> str:
        """The metric that a cell shows."""
        return self.cells[cell].metric or self.metric

    def more_is_better(self, cell: str) -> bool:
        """Whether more of a cell's metric is better."""
        return (self.cells[cell].better or self.better) == "more"


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


@contextmanager
def words_of_file(name: str, given: Sequence[str]) -> Iterator[None]:
    """Errors about a word name the file of the paper, unless the word is one of those given."""
    try:
        yield
    except ConfigError as error:
        word, told, rest = str(error).partition(f" ({COMMAND_LINE})")
        key = _key(word.removeprefix("'"))
        if not told or any(key == own or key.startswith(f"{own}.") for own in map(_key, given)):
            raise
        raise ConfigError(f"{word} (conf/paper/{name}/paper.yaml){rest}") from error


def papers(config_dir: Path | None = None) -> dict[str, Path]:
    """Name -> file of every paper."""
    found: dict[str, Path] = {}
    for folder in config_folders(config_dir):
        for file in sorted(folder.glob("paper/*/paper.yaml")):
            found.setdefault(file.parent.name, file)
    return dict(sorted(found.items()))


def read_paper(name: str, config_dir: Path | None = None) -> Paper:
    """The paper with this name.

    Raises:
        ConfigError: there is none, or its file is wrong.
    """
    known = papers(config_dir)
    if name not in known:
        if any((folder / "paper" / f"{name}.yaml").is_file() for folder in config_folders(config_dir)):
            place = f"conf/paper/{name}.yaml is no paper: conf/paper/{name}/paper.yaml is its place"
            raise ConfigError(f"reproduce {name}: {place}")
        raise ConfigError(f"reproduce {name}: no such paper{nearest_of(name, known)}")
    content = read_config_file(known[name], config_folders(config_dir))
    try:
        return Paper.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = [".".join(map(str, first["loc"]))] if first["loc"] else []  # none: what is wrong is the paper
        why = first["msg"].removeprefix("Value error, ")
        raise ConfigError(": ".join([f"conf/paper/{name}/paper.yaml", *where, why])) from error


def listing(config_dir: Path | None = None) -> list[tuple[str, str]]:
    """(name, one line) of every paper."""
    return [(name, description(file)) for name, file in papers(config_dir).items()]

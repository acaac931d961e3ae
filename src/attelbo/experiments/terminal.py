"""What commands read from and print on the terminal."""

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track
from rich.table import Table

Item = TypeVar("Item")


def terminal(width: int = 0) -> Console:
    """The standard output, at least ``width`` columns wide and without line breaks of its own, however narrow the
    window is. What is printed is taken literally: ``[encoder]`` in a path or a value is no markup of rich's."""
    console = Console(soft_wrap=True, force_jupyter=False, markup=False, highlight=False)
    console.width = max(console.width, width)
    return console


def print_whole(console: Console, table: Table) -> None:
    """Print the whole of a table, however narrow the window is."""
    room = console.options.update(max_width=10_000)
    console.width = max(console.width, console.measure(table, options=room).maximum)
    console.print(table)


def tracked(items: Sequence[Item], what: str) -> Iterator[Item]:
    """The items, with a progress bar on the standard error, if it is a terminal, that is gone at the end."""
    yield from track(items, what, console=Console(stderr=True, force_jupyter=False), transient=True)


def lines_of_input() -> list[str]:
    """The lines of the standard input, ended by line feeds alone: to ``str.splitlines`` form feeds and separators of
    Unicode end lines too."""
    return [line.removesuffix("\n") for line in sys.stdin]

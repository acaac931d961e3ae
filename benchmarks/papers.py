"""docs/papers.md: the tables that `attelbo reproduce` left beside its runs. `python -m benchmarks.papers outputs`."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "papers.md"
HEAD = """\
# Tables of papers, rebuilt

Written by `python -m benchmarks.papers`; each table as `attelbo reproduce` printed it, nothing is typed in. A verdict
is given at the published budget only; a cell without a measurement was not run. The command above a table makes it, and
`attelbo reproduce --list` names all papers. Measured are the mean and its 95 % interval over seeds; seconds are those
of machines that other programs shared.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.papers", description=__doc__)
    parser.add_argument("outputs", type=Path, nargs="+", help="folders that attelbo reproduce has written to")
    folders = parser.parse_args().outputs
    tables = [table for folder in folders for table in folder.glob("papers/*/*/table.md")]
    PAGE.write_text(page(tables, PAGE.read_text("utf-8") if PAGE.is_file() else ""), "utf-8")


def page(tables: Sequence[Path], before: str = "") -> str:
    """The page of these tables, ``papers/<paper>/<budget>-<digest>/table.md``, and of those that it had ``before`` of
    other papers and budgets: full budgets first, then by name."""
    kept = {_command_of(text): text for text in re.split(r"(?m)^(?=## )", before)[1:]}
    found = {(table.parent.name.rpartition("-")[0], table.parent.parent.name): table for table in tables}
    sections = kept | {command: section(*command, table) for command, table in found.items()}
    return "\n".join([HEAD, *(sections[command].rstrip() + "\n" for command in sorted(sections))])


def section(budget: str, paper: str, table: Path) -> str:
    """A table under the command that makes it."""
    title, body = re.fullmatch(r"# (.*?)\n(.*)", table.read_text("utf-8"), re.DOTALL).groups()  # pyright: ignore
    return f"## {title}\n\n    attelbo reproduce {paper} --budget {budget}\n{body}"


def _command_of(section: str) -> tuple[str, str]:
    """The budget and the paper of a section of the page."""
    paper, budget = re.search(r"^    attelbo reproduce (\S+) --budget (\S+)$", section, re.MULTILINE).groups()  # pyright: ignore
    return budget, paper


if __name__ == "__main__":
    main()

"""The standard output as commands print on it."""

from rich.console import Console


def terminal(width: int = 0) -> Console:
    """The standard output, whose tables have at least so many columns and whose lines are not broken, however narrow
    the window is."""
    console = Console(soft_wrap=True, force_jupyter=False)
    console.width = max(console.width, width)
    return console

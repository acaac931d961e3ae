"""The command line: ``attelbo train | evaluate | sample | ... | check | list``, with Hydra's own words.

Everything is composed and checked before anything runs; what the user can correct is told in one line with
exit code 2. Each command imports what it needs when it runs, so ``attelbo --help`` imports neither torch
nor Hydra.

Exit codes: 0 done, 1 a run failed, 2 the command or configuration is wrong, 130 interrupted from the
keyboard, 141 the reader of the output closed the pipe, 143 stopped by SIGTERM after the state was saved.
"""

import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from attelbo import __version__
from attelbo.cli import running, several
from attelbo.cli.completion import completion
from attelbo.cli.parsing import CALLS, parse, print_error, print_text
from attelbo.cli.usage import HELP, help_of
from attelbo.errors import ConfigError, UserError, reachable, within_memory
from attelbo.experiments.listing import config_folders, listing, nearest_of

_OPTIONS = ("--help", "--version")

INTERRUPTED = 130
UNREAD = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started the program
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - until the process ends
    command, *words = (sys.argv[1:] if arguments is None else arguments) or ("--help",)
    try:
        with within_memory(), reachable():
            code = _dispatch(command, words)
        sys.stdout.flush()
        return code
    except UserError as error:
        return print_error(error)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output, such as head, has closed the pipe; Python would complain of it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD


def _dispatch(command: str, words: list[str]) -> int:
    if int(os.environ.get("LOCAL_RANK", "0")) > 0 and "ATTELBO_RUN_DIR" in os.environ:
        # Lightning started this process as a further rank of a run that its parent has already composed.
        from attelbo.experiments import run

        return run.join(Path(os.environ["ATTELBO_RUN_DIR"])).exit_code
    if command == "help" and words:
        command, words = words[0], ["--help"]
    if command in ("-h", "--help", "help"):
        return print_text(HELP)
    if command == "--version":
        return print_text(f"attelbo {__version__}\n")
    of_many = {
        "compare": several.compare,
        "sweep": several.sweep,
        "reproduce": several.reproduce,
        "wandb": several.wandb,
        "completion": completion,
    }
    of_one = {"train": running.train, "check": running.check, "list": _list, **dict.fromkeys(CALLS, running.call)}
    if command in of_many:
        return of_many[command](words)
    if command not in of_one:
        known = _OPTIONS if command.startswith("-") else (*of_one, *of_many)
        raise ConfigError(f"{command}: no such command{nearest_of(command, known)}")
    options = parse(command, words)
    if options.help:
        return print_text(help_of(command))
    return of_one[command](options)


def _list(options: Namespace) -> int:
    if len(options.words) > 1:
        raise ConfigError(f"list: one group at a time, such as {'/'.join(options.words)}")
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return print_text(listing(config_folders(options.config_dir), *options.words, width=width) + "\n")

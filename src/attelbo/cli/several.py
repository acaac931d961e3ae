"""The commands on many runs: sweep, compare, reproduce and wandb."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from attelbo.cli.parsing import Once, Parser, parse, print_text
from attelbo.cli.running import decides_as_it_goes, folder_of, job, plan_of, search_of
from attelbo.cli.usage import COMPARE, REPRODUCE, SWEEP, WANDB
from attelbo.errors import ConfigError
from attelbo.experiments.listing import nearest_of


def sweep(words: Sequence[str]) -> int:
    """``attelbo sweep``."""
    kind, *rest = words or ("--help",)
    if kind in ("-h", "--help"):
        return print_text(SWEEP)
    if kind == "status":
        from attelbo.experiments.sweeps import showing

        parser = Parser("sweep")
        parser.add_argument("folders", nargs="*", type=Path)
        options = parser.parse_args(rest)
        if options.help:
            return print_text(SWEEP)
        showing.status(options.folders or [Path("outputs")])
        return 0
    if kind != "dry":
        raise ConfigError(f"sweep {kind}: no such command{nearest_of(kind, ['dry', 'status'])}")
    options = parse("check", [*rest, "-m"])
    if options.help:
        return print_text(SWEEP)
    search = search_of(options)
    plan = [search.middle] if search else plan_of(options)
    if decides_as_it_goes(plan):
        raise ConfigError("sweep dry: this sweeper chooses its jobs while they run")
    from attelbo.experiments.assembly import verify
    from attelbo.experiments.sweeps import showing

    for each in plan:
        verify(each.config)  # as the sweep itself does first: a job that cannot be built is an error now
    folder = folder_of(plan, search)
    if search is None:
        showing.dry(plan, folder)
    else:
        showing.dry_search(search, folder)
    return 0


def compare(words: Sequence[str]) -> int:
    """``attelbo compare``."""
    parser = Parser("compare")
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--by", action="append", default=[])
    parser.add_argument("--metric", action="append", default=[])
    parser.add_argument("--pair", action=Once, nargs=2, type=int)
    parser.add_argument("--runs", action="store_true")
    parser.add_argument("--udr", action=Once, choices=("lasso", "spearman"))
    parser.add_argument("-o", "--output", action="append", type=Path, default=[])
    options = parser.parse_intermixed_args(words)
    if options.help:
        return print_text(COMPARE)
    parser.refuse_without_dashes(options.folders)
    if not options.folders:
        parser.error("which runs? name a folder")
    from attelbo.experiments import comparison

    pair = options.pair and tuple(options.pair)
    comparison.compare(options.folders, options.by, options.metric, options.output, pair, options.runs, options.udr)
    return 0


def reproduce(words: Sequence[str]) -> int:
    """``attelbo reproduce``."""
    parser = Parser("reproduce")
    parser.add_argument("paper", nargs="?")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--budget", choices=["smoke", "quick", "full"], default="quick")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--cell", action="append", default=[])
    parser.add_argument("-o", "--output", action="append", type=Path, default=[])
    parser.add_argument("--config-dir", "-cd", type=Path)
    options = parser.parse_intermixed_args(words)
    if options.help:
        return print_text(REPRODUCE)
    from attelbo.experiments.papers.specification import listing, read_paper

    if options.list:
        return print_text("".join(f"{name:<24}{text}\n" for name, text in listing(options.config_dir)))
    parser.refuse_without_dashes([options.paper or "", *options.words])
    if options.paper is None:
        parser.error("which paper? attelbo reproduce --list")
    if options.seeds is not None and options.seeds < 1:
        parser.error(f"--seeds must be at least 1, got {options.seeds}")
    paper = read_paper(options.paper, options.config_dir)
    for cell in options.cell:
        if cell not in paper.cells:
            parser.error(f"--cell {cell}: no such cell{nearest_of(cell, paper.cells)}")
    from attelbo.experiments.papers.table import FORMS

    for path in options.output:
        if path.suffix not in FORMS:
            parser.error(f"--output {path}: its form must be one of {', '.join(FORMS)}")
    from attelbo.experiments.composing import session
    from attelbo.experiments.papers import command

    task = partial(job, loaded={}, job_type="reproduce")
    with session() as hydra:
        plan = command.plan_of(options.paper, paper, options.budget, options.seeds, options.words, options.config_dir)
        return command.reproduce(hydra, paper, options.budget, plan, task, options.output, options.cell)


def wandb(words: Sequence[str]) -> int:
    """``attelbo wandb``."""
    kind, *rest = words or ("--help",)
    if kind in ("-h", "--help"):
        return print_text(WANDB)
    if kind not in ("sync", "report"):
        raise ConfigError(f"wandb {kind}: no such command{nearest_of(kind, ['sync', 'report'])}")
    parser = Parser("wandb")
    parser.add_argument("folders", nargs="*", type=Path)
    if kind == "report":
        parser.add_argument("--metric", action="append", default=[])
        parser.add_argument("--dry", action="store_true")
    options = parser.parse_intermixed_args(rest)
    if options.help:
        return print_text(WANDB)
    parser.refuse_without_dashes(map(str, options.folders))
    if not options.folders or (kind == "report" and len(options.folders) > 1):
        parser.error(f"wandb {kind}: which runs? name {'one folder' if kind == 'report' else 'a folder'}")
    if kind == "report":
        from attelbo.experiments.boards.reporting import report

        report(options.folders[0], options.metric, options.dry)
    else:
        from attelbo.experiments.boards.syncing import sync

        sync(options.folders)
    return 0

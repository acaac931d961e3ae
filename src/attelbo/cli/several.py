"""The commands on many runs: sweep and compare."""

from collections.abc import Sequence
from pathlib import Path

from attelbo.cli.parsing import parse, parser_of, say
from attelbo.cli.running import decides_as_it_goes, folder_of, plan_of
from attelbo.cli.usage import COMPARE, SWEEP
from attelbo.errors import ConfigError


def sweep(words: Sequence[str]) -> int:
    """``attelbo sweep``."""
    kind, *rest = words or ("--help",)
    if kind in ("-h", "--help"):
        return say(SWEEP)
    if kind == "status":
        from attelbo.experiments.sweeps import showing

        parser = parser_of("sweep")
        parser.add_argument("folders", nargs="*", type=Path, default=[])
        options = parser.parse_args(rest)
        showing.status(options.folders or [Path("outputs")])
        return 0
    if kind != "dry":
        raise ConfigError(f"sweep {kind}: no such command; attelbo sweep dry ..., or attelbo sweep status DIR")
    options = parse("check", [*rest, "-m"])
    plan = plan_of(options)
    if decides_as_it_goes(plan):
        raise ConfigError("sweep dry: this sweeper makes its jobs while they run")
    from attelbo.experiments.sweeps import showing

    showing.dry(plan, folder_of(plan)[0])
    return 0


def compare(words: Sequence[str]) -> int:
    """``attelbo compare``."""
    parser = parser_of("compare")
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--by", action="append", default=[])
    parser.add_argument("--metric", action="append", default=[])
    parser.add_argument("--pair", nargs=2, type=int)
    parser.add_argument("-o", "--output", action="append", type=Path, default=[])
    options = parser.parse_intermixed_args(words)
    if options.help:
        return say(COMPARE)
    if not options.folders:
        parser.error("which runs? name a folder")
    from attelbo.experiments import comparison

    comparison.compare(
        options.folders, options.by, options.metric, options.output, options.pair and tuple(options.pair)
    )
    return 0

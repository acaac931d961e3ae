"""The command line: ``attelbo train | evaluate | sample | ... | check | list``, with Hydra's own words.

Everything is composed and checked before anything runs; what the user can mend is told in one line with
exit code 2. Each command imports what it needs when it runs, so ``attelbo --help`` imports neither torch
nor Hydra.

Exit codes: 0 done, 1 a run failed, 2 the command or configuration is wrong, 130 interrupted from the
keyboard, 143 stopped by SIGTERM after the state was saved.
"""

import os
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attelbo.errors import ConfigError, UserError
from attelbo.experiments.usage import COMPARE, HELP, help_of, root_of

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from omegaconf import DictConfig

    from attelbo.experiments.configuration import Composition

CALLS = ("evaluate", "sample", "translate", "reconstruct", "interpolate", "traverse", "embed", "fit-prior")
"""Commands whose root file is itself the call."""

LITERAL = ("prompt=", "text=")
"""Words of these commands whose value is taken as it stands, whatever signs of Hydra's are in it."""

INTERRUPTED, STOPPED = 130, 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    command, *words = sys.argv[1:] if arguments is None else arguments or ("--help",)
    try:
        return _dispatch(command, words)
    except UserError as error:
        return _tell(error)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED


def _dispatch(command: str, words: list[str]) -> int:
    if command in ("-h", "--help", "help"):
        return _print(HELP)
    if command == "--version":
        from attelbo import __version__

        return _print(f"attelbo {__version__}\n")
    handlers = {"train": _train, "check": _check, "list": _list, **dict.fromkeys(CALLS, _call)}
    if command == "compare":
        return _compare(words)
    if command not in handlers:
        from attelbo.experiments.listing import nearest_of

        raise ConfigError(f"{command}: no such command{nearest_of(command, [*handlers, 'compare'])}")
    if command == "train" and int(os.environ.get("LOCAL_RANK", "0")) > 0 and "ATTELBO_RUN_DIR" in os.environ:
        # Lightning started this process to help with a run that its parent has already composed.
        from attelbo.experiments import run

        return run.join(Path(os.environ["ATTELBO_RUN_DIR"])).exit_code
    options = _parse(command, words)
    if options.help:
        return _print(help_of(command))
    return handlers[command](options)


def _parser(command: str) -> "ArgumentParser":
    from argparse import ArgumentParser

    class Parser(ArgumentParser):
        def error(self, message: str) -> Any:
            raise ConfigError(f"command line: {message}; see attelbo {command} --help")

    parser = Parser(prog=f"attelbo {command}", add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true")
    return parser


def _parse(command: str, words: list[str]) -> "Namespace":
    parser = _parser(command)
    parser.add_argument("--config-dir", "-cd", type=Path)
    parser.add_argument("words", nargs="*")
    if command != "list":
        parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
        parser.add_argument("--resolve", action="store_true")
    if command in ("train", "check"):
        parser.add_argument("-m", "--multirun", action="store_true")
    options = parser.parse_intermixed_args(words)
    if getattr(options, "cfg", None) and getattr(options, "multirun", False):
        parser.error("--cfg prints one configuration: leave out -m")
    # The group of priors is one of a model's; to who fits one alone it is `prior`.
    options.words = [f"model/prior@{word}" if word.startswith("prior=") else word for word in options.words]
    if command in CALLS:
        options.words = [_quoted(word) if word.startswith(LITERAL) else word for word in options.words]
    options.command = command
    return options


def _quoted(word: str) -> str:
    """``key='value'``, escaped for Hydra (quotes) and OmegaConf (interpolations); what is in quotes stays."""
    key, _, value = word.partition("=")
    if len(value) > 1 and value[0] == value[-1] in "'\"":
        return word
    value = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    value = re.sub(r"(\\*)('|\Z)", lambda end: end[1] * 2 + ("\\'" if end[2] else ""), value)
    return f"{key}='{value}'"


def _list(options: "Namespace") -> int:
    from attelbo.experiments.listing import config_folders, listing

    if len(options.words) > 1:
        raise ConfigError("list: one group at a time")
    return _print(listing(config_folders(options.config_dir), *options.words) + "\n")


def _compare(words: list[str]) -> int:
    parser = _parser("compare")
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--by", action="append", default=[])
    parser.add_argument("--metric", action="append", default=[])
    parser.add_argument("--pair", nargs=2, type=int)
    parser.add_argument("-o", "--output", action="append", type=Path, default=[])
    options = parser.parse_intermixed_args(words)
    if options.help:
        return _print(COMPARE)
    if not options.folders:
        parser.error("which runs? name a folder")
    from attelbo.experiments.comparison import compare

    compare(options.folders, options.by, options.metric, options.output, options.pair and tuple(options.pair))
    return 0


def _plan(options: "Namespace") -> "list[Composition]":
    """Compose and check every job of the command."""
    from attelbo.experiments.configuration import check, compose, expand

    root, words, folder = root_of(options.command), options.words, options.config_dir
    if _multirun(options):
        jobs = expand(root, words, config_dir=folder)
        # A sweeper that decides as it goes: what all its jobs share can be checked all the same.
        shared = [compose(root, words, config_dir=folder, multirun=True)] if jobs is None else []
        plan = shared or [compose(root, job, config_dir=folder) for job in jobs or ()]
    else:
        plan = [compose(root, words, config_dir=folder)]
    for job in plan:
        check(job)
    if root == "train" and not _multirun(options) and (n := plan[0].config["trainer"]["replicas"]) > 1:
        first, others = plan[0].config["seed"], [word for word in words if not word.startswith("seed=")]
        plan = [compose(root, [*others, f"seed={seed}"], config_dir=folder) for seed in range(first, first + n)]
    return plan


def _multirun(options: "Namespace") -> bool:
    return getattr(options, "multirun", False) or "hydra.mode=MULTIRUN" in options.words


def _show(options: "Namespace") -> int:
    """``--cfg``: Hydra prints what it composed."""
    from attelbo.experiments.composing import session
    from attelbo.experiments.configuration import compose, with_folders

    composed = compose(root_of(options.command), options.words, config_dir=options.config_dir)
    with session() as hydra:
        hydra.show_cfg(
            composed.root, with_folders(options.words, composed.folders), options.cfg, None, resolve=options.resolve
        )
    return 0


def _check(options: "Namespace") -> int:
    if options.cfg:
        return _show(options)
    plan = _plan(options)
    from attelbo.experiments.assembly import verify

    for job in plan:
        summary = verify(job.config)
        _print(f"ok: {job.config['name']} {summary or ''}".rstrip() + "\n")
    return 0


def _call(options: "Namespace") -> int:
    """The root file is itself the call."""
    if options.cfg:
        return _show(options)
    (composed,) = _plan(options)
    from attelbo.building import build

    return build(composed.config) or 0


def _train(options: "Namespace") -> int:
    """Check everything, then let Hydra run the job, or its launcher the jobs of a sweep."""
    if options.cfg:
        return _show(options)
    from attelbo.experiments.composing import loader_of, session

    multirun = _multirun(options)
    if not any(word.startswith("hydra.mode=") for word in options.words):
        options.words.append(f"hydra.mode={'MULTIRUN' if multirun else 'RUN'}")
    with session() as hydra:
        plan = _plan(options)
        from attelbo.experiments.configuration import with_folders

        if any(job.config["trainer"]["replicas"] > 1 for job in plan):
            return _train_replicas(plan)
        words = with_folders(options.words, plan[0].folders)
        if not multirun:
            return hydra.run("train", _job, words).return_value
        from attelbo.experiments.assembly import verify

        for job in plan:
            verify(job.config)  # no job runs if another cannot be built
        given = any(word.startswith("hydra.sweep.dir=") for word in words)
        folder = Path(plan[0].hydra.sweep.dir) if given else _sweep_folder(plan)
        if not given:
            loader_of(hydra).name_sweep(folder)
        batches = hydra.multirun("train", partial(_job, loaded={}), words)
    codes = [job.return_value for batch in batches or () for job in batch]
    failed = sum(code != 0 for code in codes)
    _print(f"sweep: {len(codes) - failed} of {len(codes)} jobs done in {folder}\n")
    return 1 if failed else 0


def _train_replicas(plan: "list[Composition]") -> int:
    """The jobs run here, several in one process: Hydra has composed them and has no part in it."""
    from attelbo.experiments import replicas

    given = any(word.startswith("hydra.sweep.dir=") for word in plan[0].overrides)
    return replicas.train(plan, Path(plan[0].hydra.sweep.dir) if given else _sweep_folder(plan))


def _sweep_folder(plan: "Sequence[Composition]") -> Path:
    """Named by what the sweep runs, so that the same command again finds it."""
    import hashlib

    from attelbo.experiments.rundir import config_hash

    names = {job.config["name"] for job in plan}
    content = " ".join(sorted(config_hash(job.config) for job in plan))
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    name = names.pop() if len(names) == 1 else "multirun"
    return Path(plan[0].config["paths"]["output_dir"]) / name / f"sweep-{digest}"


def _job(config: "DictConfig", loaded: "dict[str, Any] | None" = None) -> int:
    """What Hydra runs: one training run. Its exit code is returned, never raised: the other jobs go on.

    Jobs that run in one process find the data of the job before in ``loaded``.
    """
    import traceback

    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from attelbo.experiments import run

    hydra = HydraConfig.get()
    sweep = Path(hydra.sweep.dir) if hydra.mode == RunMode.MULTIRUN else None
    choices = {group: choice for group, choice in hydra.runtime.choices.items() if "hydra" not in group}
    plain: Any = OmegaConf.to_container(config, resolve=True)
    try:
        code = run.train(plain, list(hydra.overrides.task), choices, sweep, loaded=loaded).exit_code
    except UserError as error:
        code = _tell(error)
    except Exception:
        traceback.print_exc()
        code = 1
    if code > 128 and sweep is not None and "basic_launcher" in hydra.launcher._target_:
        raise SystemExit(code)  # who stops this process does not want its next job to start
    return code


def _tell(error: UserError) -> int:
    sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
    return 2


def _print(text: str) -> int:
    sys.stdout.write(text)
    return 0

"""The commands that are composed by Hydra: train, check, and those whose root file is itself the call."""

import shlex
from argparse import Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attelbo.cli.parsing import print_error, print_text
from attelbo.cli.usage import root_of
from attelbo.errors import ConfigError, UserError, did_you_mean, nearest, reachable, within_memory

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from attelbo.experiments.boards.telling import JobType
    from attelbo.experiments.configuration import Composition
    from attelbo.experiments.sweeps.searching import Search


def search_of(options: Namespace) -> "Search | None":
    """The search that the command names, if it names one. Words that name a sweep are replaced by its own.

    Raises:
        ConfigError: something is wrong with it.
    """
    from attelbo.experiments.sweeps.specification import is_sweep_word, read

    named = list(filter(is_sweep_word, options.words))
    if not named:
        return None
    if options.cfg or not is_multirun(options):
        remedy = "--cfg prints one configuration: leave it out" if options.cfg else "add -m"
        raise ConfigError(f"{named[0]} (command line): a sweep is many runs: {remedy}")
    sweep = read(options.words, options.config_dir)
    options.words = list(sweep.words)
    if sweep.sampler is None:
        return None
    from attelbo.experiments.sweeps.searching import Search

    return Search.of(root_of(options.command), sweep, options.config_dir)


def plan_of(options: Namespace) -> "list[Composition]":
    """Compose and check every job of the command."""
    from attelbo.experiments.configuration import check as check_keys
    from attelbo.experiments.configuration import compose

    root, words, folder = root_of(options.command), options.words, options.config_dir
    if is_multirun(options):
        from attelbo.experiments.sweeps.expanding import expand

        jobs = expand(root, words, config_dir=folder)
        if jobs is None:  # the sweeper chooses its jobs while they run: what they share can be checked all the same
            plan = [compose(root, words, config_dir=folder, multirun=True)]
        else:
            plan = [compose(root, each, config_dir=folder) for each in jobs]
    else:
        plan = [compose(root, words, config_dir=folder)]
    for each in plan:
        check_keys(each)
    if root == "train" and not is_multirun(options) and (n := plan[0].config["trainer"]["replicas"]) > 1:
        from attelbo.experiments.sweeps.expanding import check_count

        check_count(n, f"trainer.replicas={n}")
        first, others = plan[0].config["seed"], [word for word in words if not word.startswith("seed=")]
        plan = [compose(root, [*others, f"seed={seed}"], config_dir=folder) for seed in range(first, first + n)]
    return plan


def is_multirun(options: Namespace) -> bool:
    """Whether the command is a sweep."""
    return getattr(options, "multirun", False) or "hydra.mode=MULTIRUN" in options.words


def _show(options: Namespace) -> int:
    """``--cfg``: Hydra prints what it composed."""
    from attelbo.experiments.composing import session
    from attelbo.experiments.configuration import compose, with_folders

    if root_of(options.command) == "train":
        search_of(options)  # a sweep is refused
    composed = compose(root_of(options.command), options.words, config_dir=options.config_dir)
    with session() as hydra:
        hydra.show_cfg(
            composed.root, with_folders(options.words, composed.folders), options.cfg, None, resolve=options.resolve
        )
    return 0


def check(options: Namespace) -> int:
    """``attelbo check``."""
    if options.cfg:
        return _show(options)
    search = search_of(options)
    plan = [search.middle] if search else plan_of(options)
    from attelbo.experiments.assembly import verify

    for each in plan:
        about, *parts = verify(each.config)
        print_text(f"ok: {each.config['name']} {about}\n")
        if len(plan) == 1:
            print_text("".join(f"  {part}\n" for part in parts))
    return 0


def call(options: Namespace) -> int:
    """The root file is itself the call."""
    if options.cfg:
        return _show(options)
    if options.command == "fit-prior" and (words := _of_first_stage(options.words)):
        return _fit_both(options, words)
    (composed,) = plan_of(options)
    if composed.config.get("run") == "":
        raise ConfigError("run is empty, as an unset variable is; run=. is the newest run below the working directory")
    from attelbo.building import build

    return build(composed.config) or 0


def _of_first_stage(words: Sequence[str]) -> list[str]:
    """The words of ``fit-prior`` that are meant for ``train``; none where a run is given."""
    import inspect

    from attelbo.experiments.fitting import fit_prior

    own = {"hydra", *inspect.signature(fit_prior).parameters}
    return [] if any(_first(word) == "run" for word in words) else [word for word in words if _first(word) not in own]


def _first(word: str) -> str:
    """The first part of a word's key: ``model`` of ``model.encoder.depth=2`` and of ``model/encoder=mlp``."""
    return word.lstrip("+~").partition("=")[0].rpartition("@")[2].partition(".")[0].partition("/")[0]


def _refuse_slips(words: Sequence[str]) -> None:
    """Raise ConfigError at a word that looks like a misspelt key of ``fit-prior`` and not like one of ``train``."""
    import inspect

    from attelbo.experiments.configuration import Train
    from attelbo.experiments.fitting import fit_prior

    train = [*inspect.signature(Train).parameters, "experiment", "debug"]
    for key in (key for word in words if (key := _first(word)) not in train):
        if (guess := nearest(key, [*inspect.signature(fit_prior).parameters, *train])) and guess not in train:
            raise ConfigError(f"{key} (command line): unknown key{did_you_mean(guess)} [conf/fit_prior.yaml]")


def _fit_both(options: Namespace, words: list[str]) -> int:
    """Run both stages; one that is done is found, one that was interrupted is resumed."""
    from attelbo.experiments.configuration import check as check_keys
    from attelbo.experiments.configuration import compose
    from attelbo.experiments.fitting import fit_both, shared_words

    _refuse_slips(words)
    own = [word for word in options.words if word not in words]
    first = compose("train", [*words, *shared_words(own), "ckpt=auto"], config_dir=options.config_dir)
    second = compose("fit_prior", [*own, "run=first"], config_dir=options.config_dir)
    for each in (first, second):
        check_keys(each)
    return fit_both(first, {key: value for key, value in second.config.items() if key not in ("_target_", "run")})


def train(options: Namespace) -> int:
    """Check everything, then let Hydra run the job, or its launcher the jobs of a sweep."""
    if options.cfg:
        return _show(options)
    from attelbo.experiments.composing import loader_of, session
    from attelbo.experiments.hydra_keys import building

    multirun = is_multirun(options)
    if not any(word.startswith("hydra.mode=") for word in options.words):
        options.words.append(f"hydra.mode={'MULTIRUN' if multirun else 'RUN'}")
    with session() as hydra:
        search = search_of(options)
        plan = [search.middle] if search else plan_of(options)
        from attelbo.experiments.configuration import with_folders

        if any(each.config["trainer"]["replicas"] > 1 for each in plan):
            return _train_replicas(plan)
        if not multirun:
            with building():
                return hydra.run("train", job, with_folders(options.words, plan[0].folders)).return_value
        from attelbo.experiments.assembly import verify
        from attelbo.experiments.sweeps import running, searching
        from attelbo.experiments.sweeps.expanding import shared_words

        for each in plan:
            verify(each.config)  # no job runs if another cannot be built
        folder = folder_of(plan, search)
        task = partial(job, loaded={})
        with loader_of(hydra).sweep(folder):
            if decides_as_it_goes(plan):
                with building():
                    batches = hydra.multirun("train", task, with_folders(options.words, plan[0].folders))
                return int(any(each.return_value for batch in batches or () for each in batch))
            shared = with_folders(shared_words(options.words), plan[0].folders)
            if search is not None:
                return searching.run(hydra, search, folder, shared, task)
            code = running.run(hydra, plan, folder, shared, task)
        if code == 0 and len(plan) > 1:
            _tell_compare(folder)
        return code


def folder_of(plan: "list[Composition]", search: "Search | None" = None) -> Path:
    """The directory of a sweep: the one given as ``hydra.sweep.dir``, or one that is named by what the sweep runs."""
    if any(word.startswith("hydra.sweep.dir=") for word in plan[0].overrides):
        return Path(plan[0].hydra.sweep.dir)
    return search.folder if search else _sweep_folder(plan)


def decides_as_it_goes(plan: "list[Composition]") -> bool:
    """Whether the sweeper chooses its jobs while they run."""
    return not plan[0].hydra.sweeper._target_.endswith(".BasicSweeper")


def _train_replicas(plan: "list[Composition]") -> int:
    """Train the jobs here, several in one process. Hydra has composed them and does no more."""
    from attelbo.experiments import replicas

    if len(seeds := {each.config["seed"] for each in plan}) == 1 and len(plan) > 1:
        size = min(plan[0].config["trainer"]["replicas"], len(plan))
        print_text(
            f"note: {size} of the {len(plan)} jobs of this sweep share a process, and all have seed {seeds.pop()}; "
            f"intervals take several, -m seed=0,1,2,...\n"
        )
    code = replicas.train(plan, folder := folder_of(plan))
    if code == 0 and len(plan) > 1:
        _tell_compare(folder)
    return code


def _tell_compare(folder: Path) -> None:
    print_text(f"sweep: attelbo compare {shlex.quote(str(folder))} sets the runs side by side\n")


def _sweep_folder(plan: "Sequence[Composition]") -> Path:
    """Named by what the sweep runs, so that the same command again finds it."""
    from attelbo.experiments.rundir import config_hash, short_hash

    names = {each.config["name"] for each in plan}
    name = names.pop() if len(names) == 1 else "multirun"
    what = short_hash(" ".join(sorted(config_hash(each.config) for each in plan)))
    return Path(plan[0].config["paths"]["output_dir"]) / name / f"sweep-{what}"


def job(config: "DictConfig", loaded: "dict[str, Any] | None" = None, job_type: "JobType" = "train") -> int:
    """What Hydra runs: one training run. Its exit code is returned, never raised: the other jobs go on.

    Jobs that run in one process pass on their data in ``loaded``.
    """
    import traceback

    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from attelbo.experiments import run
    from attelbo.experiments.configuration import choices_of
    from attelbo.experiments.sweeps import logs

    hydra = HydraConfig.get()
    sweep = Path(hydra.sweep.dir) if hydra.mode == RunMode.MULTIRUN else None
    here = "basic_launcher" in hydra.launcher._target_
    plain: Any = OmegaConf.to_container(config, resolve=True)
    with nullcontext() if sweep is None or here else logs.written_to(logs.of_job(sweep, plain)):
        try:
            words = list(hydra.overrides.task)
            with within_memory(), reachable():
                code = run.train(plain, words, choices_of(hydra), sweep, loaded=loaded, job_type=job_type).exit_code
        except UserError as error:
            code = print_error(error)
        except Exception:
            traceback.print_exc()
            code = 1
    if code > 128 and sweep is not None and here:
        raise SystemExit(code)  # a signal that stops this process stops the sweep, not this job only
    return code

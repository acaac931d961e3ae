"""Optuna's study of a search: ``search.db`` in the sweep's directory.

The ledger and the run directories are authoritative; the study is updated from them, so it may be behind after a kill
and then catches up. The sampler is seeded by the number of the proposal: what it proposes is a function of that and of
the reported results, whether the search was interrupted or not.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import OptunaError
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from attelbo.errors import UserError, first_line
from attelbo.experiments.sweeps.ledger import Job, Ledger
from attelbo.experiments.sweeps.space import Parameter, Value, point
from attelbo.experiments.sweeps.specification import Sweep
from attelbo.seeding import derive_seed

FILE = "search.db"
_NAME = "search"
_JOB = "job"
"""The attribute of a trial that names its job, by its hash."""


def storage_of(file: Path) -> RDBStorage:
    """The storage in a file, which is open only while it is read or written."""
    # No path in the URL, where "?", "%" and braces mean something. Connections of a pool are closed by the garbage
    # collector, of which Python warns from 3.13 on.
    options = {"creator": lambda: sqlite3.connect(file, timeout=60), "poolclass": NullPool}
    return RDBStorage("sqlite://", engine_kwargs=options)


_REMEDY = "; move it away, and the same command makes it anew from the jobs that are done"
_NOT_ITS_FAULT = ("is locked", "readonly", "disk I/O error", "is full")
"""Refusals after which the file is as good as before."""


@contextmanager
def _used(file: Path) -> Iterator[None]:
    """Turn errors of Optuna, SQLAlchemy or SQLite about the file into one line."""
    try:
        yield
    except (OptunaError, SQLAlchemyError, sqlite3.Error) as error:
        problem = first_line(error.__cause__ or error)
        remedy = "" if any(word in problem for word in _NOT_ITS_FAULT) else _REMEDY
        raise UserError(f"{file} cannot be used: {problem}{remedy}") from error
    except RuntimeError as error:
        if "table schema" not in str(error):  # as Optuna says it
            raise
        raise UserError(f"{file} cannot be used: it is of another version of Optuna{_REMEDY}") from error


class Study:
    """The study of a search, in its directory.

    Args:
        folder: the sweep's directory.
        search: its record in the ledger.

    Raises:
        UserError: its file cannot be read or written.
    """

    def __init__(self, folder: Path, search: Mapping[str, Any]) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._file = folder / FILE
        with _used(self._file):
            self._study = optuna.create_study(
                storage=storage_of(self._file),
                study_name=_NAME,
                direction=search["direction"],
                load_if_exists=True,
            )
            known = self._study.direction.name.lower()
        if known != search["direction"]:
            raise UserError(
                f"{self._file} cannot be used: it is of another search, which is to {known} its metric{_REMEDY}"
            )

    def propose(self, space: Sequence[Parameter], sweep: Sweep, index: int) -> "Proposal | None":
        """Proposal ``index`` of the search; None if the sampler has no more.

        Raises:
            UserError: the file cannot be written.
        """
        distributions = {parameter.key: parameter.distribution() for parameter in space}
        assert sweep.sampler is not None
        if sweep.sampler == "tpe":
            seed = derive_seed(sweep.seed, "trial", index) % 2**32
            self._study.sampler = TPESampler(seed=seed, multivariate=True, constant_liar=sweep.concurrent > 1)
        else:
            place = point(space, sweep.sampler, sweep.seed, index)
            if place is None:
                return None
            self._study.sampler = _Given(place)
        with _used(self._file):
            return Proposal(self._study, self._study.ask(distributions))

    def catch_up(self, ledger: Ledger, space: Sequence[Parameter]) -> None:
        """Report the jobs' results to the study. Trials without a job, left by a killed process, are marked as failed.

        Raises:
            UserError: the file cannot be written.
        """
        with _used(self._file):
            self._tell(ledger, space)

    def _tell(self, ledger: Ledger, space: Sequence[Parameter]) -> None:
        trials: dict[str, FrozenTrial] = {}
        for trial in self._study.get_trials(deepcopy=False):
            trials[trial.user_attrs.get(_JOB, f"of no job {trial.number}")] = trial
        for job in ledger.jobs:
            self._tell_of(job, trials.pop(job.hash, None), ledger, space)
        for trial in trials.values():
            if not trial.state.is_finished():
                self._study.tell(trial.number, state=TrialState.FAIL)

    def _tell_of(self, job: Job, trial: FrozenTrial | None, ledger: Ledger, space: Sequence[Parameter]) -> None:
        state, best = ledger.state(job), ledger.best(job)
        if trial is None or (trial.state == TrialState.FAIL and state in ("done", "pruned")):
            # It failed and ran again, or the file was lost.
            trial = self._again(job, space)
        if trial.state.is_finished():
            return
        if state == "failed" or (state in ("done", "pruned") and best is None):
            self._study.tell(trial.number, state=TrialState.FAIL)
        elif state == "done":
            self._study.tell(trial.number, best)
        elif state == "pruned":
            assert best is not None
            Trial(self._study, trial._trial_id).report(best, len(ledger.curve(job)))
            self._study.tell(trial.number, state=TrialState.PRUNED)

    def _again(self, job: Job, space: Sequence[Parameter]) -> FrozenTrial:
        """Add a trial with the parameters of a job that has none, or none that is open."""
        words = dict(word.split("=", 1) for word in job.words if "=" in word)
        self._study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params={parameter.key: parameter.value(words[parameter.key]) for parameter in space},
                distributions={parameter.key: parameter.distribution() for parameter in space},
                user_attrs={_JOB: job.hash},
            )
        )
        return self._study.get_trials(deepcopy=False)[-1]


_ENOUGH = 8


def importances(folder: Path) -> Mapping[str, float]:
    """The importance of each parameter of a search to the metric (PED-ANOVA, Watanabe et al. 2023); empty where too few
    trials are complete. Nothing is written.

    Raises:
        UserError: the file of the search in its directory cannot be read.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _used(folder / FILE):
        try:
            study = optuna.load_study(study_name=_NAME, storage=storage_of(folder / FILE))
        except KeyError:  # killed before it was begun
            return {}
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(complete) < _ENOUGH or len({trial.value for trial in complete}) < 2:
            return {}
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        return optuna.importance.get_param_importances(study, evaluator=evaluator)


class Proposal:
    """An open trial, whose job is not known yet."""

    def __init__(self, study: optuna.Study, trial: Trial) -> None:
        self._study, self._trial = study, trial
        self.values: Mapping[str, Value] = trial.params

    def become(self, job: str) -> None:
        """Record that this is the trial of a job."""
        self._trial.set_user_attr(_JOB, job)

    def withdraw(self) -> None:
        """Drop it: its job exists already."""
        self._study.tell(self._trial, state=TrialState.FAIL)


class _Given(BaseSampler):
    """Proposes what it was given."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = values

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._values[param_name]

"""Hydra, set up on attelbo's configuration folder; within a session the same files are composed once.

A job of a sweep is composed three times: to be checked before any job runs, by Hydra's sweeper, which makes sure that
all jobs can be composed, and by the launcher that runs it. Each time takes a fifth of a second, nearly all of it for
choosing and merging files, which most jobs have in common. And the directory of the sweep is named by its jobs'
configurations, so it is known only when they are composed.
"""

import copy
import pickle
from codecs import BOM_UTF8
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra import initialize_config_dir
from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository, IConfigRepository
from hydra._internal.defaults_list import DefaultsList
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from attelbo.errors import ConfigError
from attelbo.experiments.grammar import Grammar
from attelbo.experiments.listing import NESTED, package_folder
from attelbo.experiments.origins import shown

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra


Copier = Callable[[], Any]
"""Makes a copy of something each time."""


def copier_of(original: Any) -> Copier:
    """Copies an object of OmegaConf by unpickling, in a fraction of the time that a deep copy takes; by deep copies
    where it cannot be pickled, as in a job to which a launcher has sent the classes of Hydra's plugins."""
    try:
        return partial(pickle.loads, pickle.dumps(original))
    except (pickle.PicklingError, AttributeError, TypeError):
        return partial(copy.deepcopy, original)


class Files(ConfigRepository):
    """Hydra's view of the configuration files, each read once; callers change copies only."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self._read: dict[Hashable, ConfigResult | None] = {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        key = (config_path, *(source.path for source in self.sources))
        if key not in self._read:
            found = super().load_config(config_path)
            if found is not None:
                _refuse_mark(Path(found.path.removeprefix("file://")) / f"{config_path}.yaml")
            if found is not None and config_path.startswith("hydra/launcher/"):
                found.is_schema_source = True  # else Hydra validates it against the plugin's schema of the same name
            self._read[key] = found
        return self._read[key]

    def __deepcopy__(self, memo: dict[int, Any]) -> "Files":
        # Hydra begins every composition with a copy, since it may add folders.
        other = copy.copy(self)
        other._read = self._read
        return other

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_read": {}}


class Loader(ConfigLoaderImpl):
    """Hydra's loader with a cache, which is left out when a launcher sends it to another process."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self.repository = Files(config_search_path)
        self._known: dict[Hashable, Copier] = {}
        self._sweep_dir: Path | None = None

    @contextmanager
    def sweep(self, folder: Path) -> Iterator[None]:
        """A context in which ``hydra.sweep.dir`` of every composition is this folder."""
        self._sweep_dir = folder
        try:
            yield
        finally:
            self._sweep_dir = None

    def _load_configuration_impl(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        *options: Any,
        **more: Any,
    ) -> DictConfig:
        """As in Hydra: first the files that words choose, from the cache if they were chosen before, then the words
        that set values. Values choose no files, so they may come last."""
        words, files = self._parse_overrides_and_create_caching_repo(
            config_name, without_default_experiment(config_name, overrides)
        )
        values = [word for word in words if _sets_value(word, files)]
        choosing = [word.input_line or "" for word in words if word not in values]
        key = (config_name, run_mode, *sorted(choosing, key=lambda word: "" if is_task_word(word) else word))
        if key not in self._known:
            with _choices_listed_where_they_are_asked():
                composed = super()._load_configuration_impl(config_name, choosing, run_mode, *options, **more)
            self._known[key] = copier_of(composed)
        config: DictConfig = self._known[key]()  # the caller will write into it
        self._apply_overrides_to_config(values, config)
        config.hydra.runtime.cwd = str(Path.cwd())
        given = [word for word in words if not word.is_hydra_override()]
        config.hydra.overrides.task = [word.input_line for word in given]
        # Hydra 1.4 has no such function: there the name is made when it is asked for.
        if dirname_of := getattr(config_loader_impl, "get_overrides_dirname", None):
            config.hydra.job.override_dirname = dirname_of(given, **config.hydra.job.config.override_dirname)
        if self._sweep_dir is not None:
            config.hydra.sweep.dir = str(self._sweep_dir)
        return config

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        """As in Hydra, which takes every word apart anew."""
        words = Grammar.create().parse_overrides(overrides)
        files = CachingConfigRepository(self.repository)
        self._process_config_searchpath(config_name, words, files)
        return words, files

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        """As in Hydra, in half the time: Hydra's own files, which come first and seldom differ, are merged once, and
        what follows in one go, since OmegaConf walks through all that there is after each merge."""
        own = [*takewhile(lambda default: (default.config_path or "").startswith("hydra/"), defaults)]
        key = (*(source.path for source in repo.get_sources()), *((d.config_path, d.package) for d in own))
        if key not in self._known:
            self._known[key] = copier_of(super()._compose_config_from_defaults_list(own, repo))
        config: DictConfig = self._known[key]()
        try:
            with flag_override(config, "no_deepcopy_set_nodes", True):
                config.merge_with(*(self._load_single_config(d, repo).config for d in defaults[len(own) :]))
        except OmegaConfBaseException:
            return super()._compose_config_from_defaults_list(defaults, repo)  # which says the file that it is in
        return config

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        """As in Hydra: a file's content, where it belongs, for the caller alone."""
        key = (default.config_path, default.package, *(source.path for source in repo.get_sources()))
        if key in self._known:
            return self._known[key]()
        single = super()._load_single_config(default, repo)
        self._known[key] = copier_of(single)
        return single

    @staticmethod
    def _embed_result_config(ret: ConfigResult, package_override: str | None) -> ConfigResult:
        """As in Hydra, which puts a deep copy of the content where the file belongs."""
        package = ret.header["package"] if package_override is None else package_override
        content = copier_of(ret.config)()
        if not package:
            return replace(ret, config=content)
        config = OmegaConf.create()
        with flag_override(config, "no_deepcopy_set_nodes", True):
            OmegaConf.update(config, package, content, merge=False)
        return replace(ret, config=config)

    def compute_defaults_list(self, config_name: str | None, overrides: list[str], run_mode: RunMode) -> DefaultsList:
        with _choices_listed_where_they_are_asked():
            return super().compute_defaults_list(
                config_name, without_default_experiment(config_name, overrides), run_mode
            )

    def get_group_options(
        self,
        group_name: str,
        results_filter: ObjectType | None = ObjectType.CONFIG,
        config_name: str | None = None,
        overrides: list[str] | None = None,
    ) -> list[str]:
        """What ``glob(...)`` chooses from; where a folder is the first half of a choice's name, what is in it too."""
        given = config_name, overrides
        found = super().get_group_options(group_name, results_filter, *given)
        if results_filter is not ObjectType.CONFIG:
            return found
        if group_name.partition("/")[0] not in NESTED:
            for folder in super().get_group_options(group_name, ObjectType.GROUP, *given):
                inside = self.get_group_options(f"{group_name}/{folder}", results_filter, *given)
                found += [f"{folder}/{name}" for name in inside]
        return [name for name in found if not name.rpartition("/")[2].startswith("_")]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": {}}


@contextmanager
def _choices_listed_where_they_are_asked() -> Iterator[None]:
    """For each file Hydra 1.3 makes a node of all choices so far, which takes a quarter of a composition, and reads it
    only where one of the file's defaults depends on such a choice: ``/own: of_${experiment}``."""
    if (listed := getattr(defaults_list, "_create_interpolation_map", None)) is None:
        yield
        return

    def where_asked(overrides: Any, defaults: list[Any], self_added: bool) -> Any:
        return listed(overrides, defaults, self_added) if any(d.is_interpolation() for d in defaults) else None

    defaults_list._create_interpolation_map = where_asked
    try:
        yield
    finally:
        defaults_list._create_interpolation_map = listed


def _sets_value(word: Override, files: IConfigRepository) -> bool:
    """Whether a word sets a value of the run's configuration and does not choose a file, by Hydra's own rule."""
    chooses = files.group_exists(word.key_or_group) and not isinstance(word.value(), dict)
    return not (chooses or word.is_hydra_override() or word.is_sweep_override())


def _refuse_mark(path: Path) -> None:
    """Raise ConfigError where a file begins with a byte order mark: Hydra would not see its first line, @package."""
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(BOM_UTF8)) == BOM_UTF8:
                raise ConfigError(
                    f"{shown(path, [package_folder()])}: it begins with a byte order mark; save it as UTF-8 without one"
                )


def without_default_experiment(config_name: str | None, overrides: list[str]) -> list[str]:
    """Drop the default experiment of ``conf/train.yaml`` where a model or data are chosen by name: it would give them
    networks and settings of its own."""
    chosen = {word.partition("=")[0].lstrip("+~") for word in overrides}
    given_way = config_name == "train" and chosen & {"model", "data"} and "experiment" not in chosen
    return [*overrides, "~experiment"] if given_way else overrides


@contextmanager
def session() -> Iterator["Hydra"]:
    """A Hydra with our loader; inside another session the same one. Inside a job of someone else's Hydra it is a new
    one, and theirs is restored."""
    outer = GlobalHydra.instance().hydra
    if outer is not None and isinstance(outer.config_loader, Loader):
        yield outer
        return
    # The one place for version_base: Hydra 1.3 wants it, 1.4 warns of it.
    version = {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}
    GlobalHydra.instance().clear()
    try:
        initialize_config_dir(config_dir=str(package_folder()), job_name="attelbo", **version)
        inner = GlobalHydra.instance().hydra
        assert inner is not None
        inner.config_loader = Loader(inner.config_loader.get_search_path())
        yield inner
    finally:
        GlobalHydra.instance().hydra = outer


def loader_of(hydra: "Hydra") -> Loader:
    """The loader of a session."""
    assert isinstance(hydra.config_loader, Loader)
    return hydra.config_loader


def is_task_word(word: str) -> bool:
    """Whether an override is for the run's configuration; ``hydra.mode=RUN`` and ``hydra/launcher=joblib`` are for
    Hydra itself."""
    return not word.lstrip("+~").startswith(("hydra.", "hydra/"))

"""Nothing is composed or read twice in a session, and nobody sees what another has written."""

import pickle
import re
from collections import Counter
from types import SimpleNamespace

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from attelbo.cli import main
from attelbo.errors import ConfigError
from attelbo.experiments import assembly, configuration, run
from attelbo.experiments.composing import loader_of, session, without_default_experiment
from attelbo.experiments.grammar import _parsed
from attelbo.experiments.listing import choices, package_folder
from attelbo.experiments.quoting import quoted
from attelbo.experiments.rundir import RunDirectory
from attelbo.experiments.sweeps.expanding import expand


@pytest.fixture(autouse=True)
def no_session(monkeypatch):
    """Not the session that the tests share."""
    monkeypatch.setattr(GlobalHydra.instance(), "hydra", None)


@pytest.fixture
def hydras_own():
    """Hydra's loader, without a memory, inside a session."""
    with session() as hydra:
        loader = ConfigLoaderImpl(loader_of(hydra).get_search_path())
        loader.repository = loader_of(hydra).repository
        yield loader


@pytest.fixture
def jobs(monkeypatch, tmp_path):
    """Runs nothing; the (seed, sweep directory) of each job, and how often each composition was made by Hydra."""
    monkeypatch.chdir(tmp_path)
    started, composed = [], Counter()

    def train(config, overrides, choices, sweep, loaded, job_type):
        started.append((config["seed"], sweep))
        if sweep is not None:
            RunDirectory.job(sweep, config).write("status.json", {"state": "done"})
        return SimpleNamespace(exit_code=0)

    make = ConfigLoaderImpl._load_configuration_impl

    def count(self, config_name, overrides, run_mode, *rest, **named):
        composed[config_name, run_mode, frozenset(overrides)] += 1
        return make(self, config_name, overrides, run_mode, *rest, **named)

    monkeypatch.setattr(run, "train", train)
    monkeypatch.setattr(assembly, "verify", lambda config: "")
    monkeypatch.setattr(ConfigLoaderImpl, "_load_configuration_impl", count)
    return SimpleNamespace(started=started, composed=composed)


def test_a_run_is_composed_once(jobs):
    assert main(["train", "seed=3"]) == 0
    assert jobs.started == [(3, None)]
    assert jobs.composed == {("train", RunMode.RUN, frozenset(["hydra.mode=RUN"])): 1}


@pytest.mark.parametrize(
    "extra",
    [[], ["--config-dir", "mine"], ["hydra.sweep.dir=there"], ["hydra.mode=MULTIRUN", "hydra/launcher=basic"]],
    ids=lambda words: words[-1] if words else "plain",
)
def test_files_that_jobs_of_a_sweep_choose_are_composed_once(jobs, tmp_path, extra):
    (tmp_path / "mine").mkdir()
    assert main(["train", "-m", "data=digits,mnist", "seed=1,2", *extra]) == 0
    assert [seed for seed, _ in jobs.started] == [1, 2, 1, 2]
    assert len({sweep for _, sweep in jobs.started}) == 1
    assert set(jobs.composed.values()) == {1}
    modes = Counter(mode for _, mode, _ in jobs.composed)
    assert modes == {RunMode.RUN: 2, RunMode.MULTIRUN: 1}  # those of both data, and what the jobs share


def test_jobs_of_a_sweep_over_models_are_those_models_and_not_the_default_experiments(monkeypatch, tmp_path):
    started = []

    def train(config, overrides, choices, sweep, loaded, job_type):
        started.append((config["name"], choices["model"], config["model"]["encoder"]["_target_"], choices.keys()))
        RunDirectory.job(sweep, config).write("status.json", {"state": "done"})
        return SimpleNamespace(exit_code=0)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "train", train)
    assert main(["train", "-m", "model=vae,autoencoder_kl"]) == 0
    assert [name for name, *_ in started] == ["digits", "digits"]
    assert [model for _, model, *_ in started] == ["vae", "autoencoder_kl"]
    assert started[1][2] == "attelbo.networks.ResNetEncoder"
    assert all("experiment" not in chosen for *_, chosen in started)


def compose(hydra, *words: str):
    return hydra.compose_config("train", list(words), run_mode=RunMode.RUN)


def test_what_is_composed_may_be_written_into():
    with session() as hydra:
        compose(hydra, "seed=4").seed = 5
        assert compose(hydra, "seed=4").seed == 4
        assert compose(hydra, "seed=6").seed == 6


def test_the_order_of_words_for_the_run_counts_and_that_of_hydras_own_does_not():
    with session() as hydra:
        one = compose(hydra, "tags=[a]", "seed=1", "hydra.verbose=true", "hydra.mode=RUN")
        two = compose(hydra, "hydra.mode=RUN", "tags=[a]", "hydra.verbose=true", "seed=1")
        assert one == two
        assert list(compose(hydra, "seed=1", "tags=[a]").hydra.overrides.task) == ["seed=1", "tags=[a]"]


def test_a_file_is_read_once_and_one_in_another_folder_is_another(monkeypatch, tmp_path):
    read = Counter()
    load = ConfigRepository.load_config

    def count(self, config_path):
        read[config_path] += 1
        return load(self, config_path)

    monkeypatch.setattr(ConfigRepository, "load_config", count)
    for name, seed in (("one", 11), ("two", 22)):
        (tmp_path / name / "debug").mkdir(parents=True)
        (tmp_path / name / "debug" / "mine.yaml").write_text(f"# @package _global_\nseed: {seed}\n")
    with session() as hydra:
        plain = [compose(hydra, f"name={name}") for name in "abc"]
        assert set(read.values()) == {1}
        found = [
            compose(hydra, "debug=mine", f"hydra.searchpath=['file://{tmp_path / n}']").seed for n in ("one", "two")
        ]
        again = compose(hydra, "name=d")
    assert found == [11, 22]
    assert [config.name for config in plain] == ["a", "b", "c"]
    again.name = "a"
    again.hydra.overrides.task = ["name=a"]
    again.hydra.job.override_dirname = "name=a"
    assert again == plain[0]


def test_no_word_is_taken_apart_twice():
    words = ["seed=3", "model.latent_dim=3", "tags=[a,b]"]
    with session() as hydra:
        configuration.compose("train", words)
        before = _parsed.cache_info().misses
        compose(hydra, *words)
        assert expand("train", ["seed=3", "model.latent_dim=2,3"]) == [
            ["seed=3", f"model.latent_dim={n}"] for n in (2, 3)
        ]
    assert _parsed.cache_info().misses <= before + 2  # what the words are made of in the sweep
    one, two = (configuration.parse(["tags=[a,b]"])[0] for _ in range(2))
    one.value().append("c")
    one.config_loader = hydra
    assert (two.value(), two.config_loader) == (["a", "b"], None)


def test_a_choice_among_the_defaults_may_follow_another(tmp_path):
    for path, content in {
        "experiment/mine.yaml": "# @package _global_\ndefaults:\n  - /own: of_${experiment}\n",
        "own/of_mine.yaml": "# @package _global_\nname: followed\n",
    }.items():
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_text(content)
    with session() as hydra:
        found = compose(hydra, "experiment=mine", f"hydra.searchpath=['file://{tmp_path}']")
    assert found.name == "followed"


def test_a_loader_that_is_sent_elsewhere_takes_no_memory_along_and_finds_the_same(tmp_path):
    with session() as hydra:
        empty = len(pickle.dumps(loader_of(hydra)))
        with loader_of(hydra).sweep(tmp_path):
            here = compose(hydra, "seed=7")
            sent = pickle.dumps(loader_of(hydra))
        there = pickle.loads(sent).load_configuration("train", ["seed=7"], RunMode.RUN)
        assert compose(hydra, "seed=7").hydra.sweep.dir != str(tmp_path)
    assert len(sent) < empty + 300
    assert there == here
    assert there.hydra.sweep.dir == str(tmp_path)


def test_a_session_inside_a_session_is_the_same_and_leaves_what_it_found():
    before = GlobalHydra.instance().hydra
    with session() as outer:
        with session() as inner:
            assert inner is outer
        assert GlobalHydra.instance().hydra is outer
        assert OmegaConf.is_config(compose(outer))
    assert GlobalHydra.instance().hydra is before


def test_a_composition_inside_a_running_job_leaves_hydra_as_it_was():
    with session() as outer:
        assert configuration.compose("train", ["seed=3"]).config["seed"] == 3
        assert GlobalHydra.instance().hydra is outer
    assert GlobalHydra.instance().hydra is None


@pytest.mark.parametrize("group", ["experiment", "data", "model", "model/encoder"])
def test_a_glob_of_all_is_what_is_listed(group):
    jobs = expand("train", [f"{group}=glob(*)"])
    assert sorted(jobs or []) == sorted([f"{group}={choice}"] for choice in choices([package_folder()])[group])


def test_a_glob_may_choose_a_folder():
    jobs = expand("train", ["experiment=glob(digits/v*, exclude=digits/vae*)"])
    names = [name for name in choices([package_folder()])["experiment"] if name.startswith("digits/v")]
    assert sorted(jobs or []) == [[f"experiment={name}"] for name in names if not name.startswith("digits/vae")] != []
    with pytest.raises(ConfigError, match=r"experiment=glob\(dgits/\*\) .*: no choice is called so; attelbo list exp"):
        expand("train", ["experiment=glob(dgits/*)"])


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["seed=3", "model=vae", "model.latent_dim=3", "tags=[a,b]", "model/encoder=resnet", "+model.mine=1"],
        ["~experiment", "model.objective={_target_: attelbo.latent.ELBO}", "~optimizer.lr", "name='a b'"],
        ["hydra.job.name=x", "data=mnist", "data.binarize=none", "hydra/launcher=joblib", "++optimizer.lr=1e-4"],
        ["hydra.job.config.override_dirname.exclude_keys=[seed]", "seed=1"],
    ],
    ids=lambda words: " ".join(words) or "none",
)
def test_what_comes_from_memory_is_what_hydra_composes(words, hydras_own):
    with session() as hydra:
        compose(hydra, *(word for word in words if word != "seed=3"))
        found = compose(hydra, *words)
    expected = hydras_own.load_configuration("train", without_default_experiment("train", words), RunMode.RUN)
    assert found == expected
    assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(expected)


def test_a_file_that_is_put_in_two_places_is_two(hydras_own):
    words = ["+optimizer@data.one=adam", "+optimizer@data.two=adam"]
    with session() as hydra:
        found, changed = compose(hydra, *words), compose(hydra, *words, "data.one.lr=7")
    expected = hydras_own.load_configuration("train", without_default_experiment("train", words), RunMode.RUN)
    assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(expected)
    assert (changed.data.one.lr, changed.data.two.lr) == (7, found.data.two.lr)


@pytest.mark.parametrize("words", [["model.no_such=1"], ["model=vae", "seed.part=3"], ["model/no_such=1"], ["~none"]])
def test_words_that_hydra_refuses_are_refused_as_it_does(words, hydras_own):
    with pytest.raises(HydraException) as expected:
        hydras_own.load_configuration("train", without_default_experiment("train", words), RunMode.RUN)
    with session() as hydra, pytest.raises(type(expected.value), match=f"^{re.escape(str(expected.value))}$"):
        compose(hydra, *words)


@pytest.mark.parametrize("value", ["it's", r"a\b", "a\\", r"a\'b", "a\\\\", "${x}", "a, [b]", ""])
def test_what_is_quoted_is_read_as_it_is(value):
    (parsed,) = configuration.parse([f"key=[{quoted(value)},{quoted('/' + value)}]"])
    assert list(map(str, parsed.value())) == [value, "/" + value]

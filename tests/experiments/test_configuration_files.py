"""Every file in conf/ composes into its command and passes the check; composing keeps its promises."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
import yaml

from attelbo.errors import ConfigError
from attelbo.experiments.configuration import SCHEMAS, check, choices_of, compose
from attelbo.experiments.listing import choices, package_folder
from attelbo.experiments.settings import Evaluation
from attelbo.experiments.sweeps.expanding import expand
from companions import NEEDS, WITHOUT_ENCODER

TRAINED = {"model", "optimizer", "scheduler", "callbacks", "logger", "debug", "trainer"}
"""Groups whose every choice is composed, checked and trained in test_experiments_smoke.py and test_models_learn.py, as
are the parts of models."""
EVERY = [
    (group, choice)
    for group, files in choices([package_folder()]).items()
    if group not in {*TRAINED, "sweep"} and not group.startswith("model/")  # sweeps are words: see test_search.py
    for choice in files
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """From any folder, not only from the checkout."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("group", "choice"), EVERY, ids=[f"{group}={choice}" for group, choice in EVERY])
def test_every_choice_composes(group, choice):
    composed = compose("train", [f"{group}={choice}", *NEEDS.get(group, ())])
    check(composed)
    if not group.startswith("hydra"):
        assert composed.choices[group] == choice


@pytest.mark.parametrize("root", ["evaluate", "sample"])
def test_every_other_root_composes(root):
    composed = compose(root, ["run=outputs/x"])
    check(composed)
    assert composed.config["run"] == "outputs/x"


def test_the_schema_has_the_keys_of_the_root_file():
    plain = compose("train").config
    assert set(plain) == {field.name for field in dataclasses.fields(SCHEMAS["train"])}
    own = yaml.safe_load((package_folder() / "train.yaml").read_text())
    assert set(own["evaluation"]) == {field.name for field in dataclasses.fields(Evaluation)}


def test_choices_are_those_of_every_group_but_hydras_own():
    """A group of one's own may have hydra in its name."""
    chosen = {"model": "vae", "model/hydra": "many_headed", "hydra/launcher": "basic", "hydra": "default"}
    hydra = SimpleNamespace(runtime=SimpleNamespace(choices=chosen))
    assert choices_of(hydra) == {"model": "vae", "model/hydra": "many_headed"}


@pytest.mark.parametrize("experiment", ["mnist/draw", "mnist/draw_64"])
def test_the_windows_of_draw_are_those_of_the_chosen_model(experiment):
    for choice, windows in (("draw", (2, 5)), ("draw_no_attention", (None, None))):
        model = compose("train", [f"experiment={experiment}", f"model={choice}"]).config["model"]
        assert (model["read"], model["write"]) == windows


@pytest.mark.parametrize("choice", sorted(WITHOUT_ENCODER))
def test_an_experiment_that_does_not_fit_the_model_says_how_to_go_on(choice):
    with pytest.raises(
        ConfigError, match=r"^model/(en|de)coder .*: nothing to override here; .* another experiment=\.\.\., or none$"
    ):
        compose("train", ["experiment=digits/conv_attention", f"model={choice}"])


@pytest.mark.parametrize("words", [["model=autoencoder_kl"], ["data=sprites"], ["data=dates", "model=transformer"]])
def test_a_model_or_data_chosen_by_name_leave_the_default_experiment_aside(words):
    composed = compose("train", words)
    assert "experiment" not in composed.choices
    assert composed.config == compose("train", [*words, "~experiment"]).config
    assert composed.config["name"] == composed.config["data"]["name"]


@pytest.mark.parametrize("words", [[], ["model/encoder=resnet"], ["data.batch_size=10"], ["optimizer=adamw"]])
def test_what_chooses_neither_goes_on_from_the_default_experiment(words):
    assert compose("train", words).choices["experiment"] == "digits/conv_attention"


def test_a_model_chosen_by_name_takes_its_place_in_an_experiment_that_is_named():
    composed = compose("train", ["experiment=digits/anp", "model=canp"])
    assert (composed.choices["experiment"], composed.choices["model"]) == ("digits/anp", "canp")


def test_the_configuration_is_plain_and_resolved():
    config = compose("train", ["paths.data_dir=somewhere", "seed=0"]).config
    assert json.loads(json.dumps(config)) == config  # no object of OmegaConf's, no tuple, no Path
    assert config["seed"] == 0
    assert type(config["seed"]) is int
    assert "somewhere" in json.dumps(config["data"])


def test_1e_minus_3_is_a_number():
    assert compose("train", ["optimizer.lr=1e-3"]).config["optimizer"]["lr"] == 0.001


def test_a_part_of_ones_own_may_be_added():
    composed = compose("train", ["+callbacks.mine._target_=lightning.pytorch.callbacks.Timer"])
    check(composed)
    assert composed.config["callbacks"]["mine"] == {"_target_": "lightning.pytorch.callbacks.Timer"}


@pytest.mark.parametrize("where", ["working folder", "--config-dir", "hydra.searchpath"])
def test_a_folder_of_ones_own_adds_to_the_groups(where, tmp_path):
    folder = tmp_path / ("conf" if where == "working folder" else "it's mine")
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment/tiny.yaml").write_text("# @package _global_\n# Tiny\nmodel:\n  latent_dim: 2\n")
    words = ["experiment=tiny"]
    if where == "hydra.searchpath":
        escaped = str(folder).replace("'", "\\'")
        words.append(f"hydra.searchpath=['file://{escaped}']")
    composed = compose("train", words, config_dir=folder if where == "--config-dir" else None)
    check(composed)
    assert composed.config["model"]["latent_dim"] == 2
    assert composed.choices["experiment"] == "tiny"


def test_a_multirun_is_expanded_as_hydra_does():
    jobs = expand("train", ["seed=1,2", "model/likelihood=bernoulli,normal", "model.latent_dim=3"])
    assert jobs == [
        [f"seed={seed}", f"model/likelihood={likelihood}", "model.latent_dim=3"]
        for seed in (1, 2)
        for likelihood in ("bernoulli", "normal")
    ]

"""Every file in conf/ composes into its command and passes the check; composing keeps its promises."""

import dataclasses
import json

import pytest
import yaml

from attelbo.errors import ConfigError
from attelbo.experiments.configuration import SCHEMAS, check, compose
from attelbo.experiments.listing import choices, package_folder
from attelbo.experiments.settings import Evaluation
from attelbo.experiments.sweeps.expanding import expand
from companions import NEEDS, WITHOUT_ENCODER, model_of

pytestmark = pytest.mark.usefixtures("one_session")

EVERY = [
    (group, choice)
    for group, files in choices([package_folder()]).items()
    if group != "sweep"  # words, no configuration: tried in test_search.py
    for choice in files
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """From any folder, not only from the checkout."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("group", "choice"), EVERY, ids=[f"{group}={choice}" for group, choice in EVERY])
def test_every_choice_composes(group, choice):
    # The default experiment chooses an encoder; a model that has none goes without it.
    model = choice if group == "model" else model_of(group.removeprefix("model/"), choice)
    within = [f"model={model}"] if model and group != "model" else []
    without = ["~experiment"] if model in WITHOUT_ENCODER else []
    composed = compose("train", [f"{group}={choice}", *NEEDS.get(group, ()), *within, *without])
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


@pytest.mark.parametrize("experiment", ["mnist/draw", "mnist/draw_64"])
def test_the_windows_of_draw_are_those_of_the_chosen_model(experiment):
    for choice, windows in (("draw", (2, 5)), ("draw_no_attention", (None, None))):
        model = compose("train", [f"experiment={experiment}", f"model={choice}"]).config["model"]
        assert (model["read"], model["write"]) == windows


@pytest.mark.parametrize("choice", sorted(WITHOUT_ENCODER))
def test_an_experiment_that_does_not_fit_the_model_says_how_to_go_on(choice):
    with pytest.raises(
        ConfigError, match=r"^model/(en|de)coder .*: nothing to override here; .* none with ~experiment$"
    ):
        compose("train", [f"model={choice}"])


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

"""Models from sequence to sequence from their configuration: what they are made of, and what does not fit."""

import copy
from dataclasses import replace

import pytest
import torch

from attelbo.attention import Additive, Location
from attelbo.building import build
from attelbo.data.batch import BOS, EOS, PAD, Batch, DataSpec
from attelbo.errors import ConfigError
from attelbo.experiments.configuration import compose

DATA = DataSpec(
    "made up",
    (12,),
    "tokens",
    n_tokens=9,
    pads=True,
    target=DataSpec("made up", (10,), "tokens", n_tokens=7, pads=True),
)
BATCH = Batch(
    torch.tensor([[BOS, 4, 5, EOS], [BOS, 4, EOS, PAD]]), torch.tensor([[BOS, 3, EOS], [BOS, 6, EOS]]), torch.arange(2)
)
MODELS = {
    "transformer": {"dim": 8, "network": {"hidden": 16}},
    "lstm_seq2seq": {"embedding": 4, "hidden": 6},
    "gru_seq2seq": {"embedding": 4, "hidden": 6},
    "bahdanau": {"embedding": 4, "hidden": 6},
    "luong": {"embedding": 4, "hidden": 6, "readout": 5},
}


@pytest.fixture(scope="module")
def configurations():
    return {name: compose("train", ["~experiment", "data=dates", f"model={name}"]).config for name in MODELS}


@pytest.fixture
def model_of(configurations):
    def made(name="transformer", data=DATA, **options):
        config = copy.deepcopy(configurations[name])
        spec = config["model"]
        for key, value in (MODELS[name] | options).items():
            changes = isinstance(value, dict) and "_target_" not in value
            spec[key] = {**spec[key], **value} if changes else value
        torch.manual_seed(0)
        return build(spec, data=data, optimizer=config["optimizer"], scheduler=config["scheduler"])

    return made


@pytest.mark.parametrize("name", MODELS)
def test_each_has_a_finite_loss_and_translates(model_of, name):
    model = model_of(name)
    loss = model.losses(BATCH)["loss"]
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.max_length == 9
    assert all(len(row) <= 9 for row in model.eval().translate(BATCH.x))


def test_what_they_are_made_of(model_of):
    assert model_of("lstm_seq2seq").network.encoder.names == ("backward",)
    assert not model_of("gru_seq2seq").network.aligns
    assert isinstance(model_of("bahdanau").network.attention.score, Additive)
    location = {"_target_": "attelbo.attention.Location"}
    assert isinstance(score := model_of("luong", score=location).network.attention.score, Location)
    assert score.weight.shape[-1] == 12  # places of the source
    assert len(model_of(network={"layers": 5}).network.decoder.blocks) == 5


def test_weights_can_be_tied(model_of):
    tied, untied = model_of(tie_weights=True).network, model_of().network
    assert tied.output.weight is tied.target.vectors.weight
    assert sum(p.numel() for p in untied.parameters()) - sum(p.numel() for p in tied.parameters()) == 7 * 8


def test_both_sides_can_have_one_vector_for_each_token(model_of):
    network = model_of(data=replace(DATA, n_tokens=7), share_embeddings=True, tie_weights=True).network
    assert network.source.vectors.weight is network.target.vectors.weight is network.output.weight
    with pytest.raises(
        ConfigError, match=r"model\.share_embeddings: sources and targets have vocabularies of their own"
    ):
        model_of(share_embeddings=True)


def test_both_sides_have_positions_of_their_own(model_of):
    network = model_of(position={"_target_": "attelbo.attention.Learned"}).network
    assert network.source.position.table.shape == (12, 8)
    assert network.target.position.table.shape == (10, 8)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("transformer", {"dim": 0}, r"^model\.dim must be at least 1, got 0"),
        ("transformer", {"dim": 9}, r"^model\.attention: heads must divide the 9 features of a token"),
        ("transformer", {"dropout": 1.0}, r"^model\.dropout must be in \[0, 1\), got 1"),
        ("transformer", {"beam": 0}, r"^model\.beam must be at least 1, got 0"),
        ("transformer", {"length_penalty": -1.0}, r"^model\.length_penalty must be finite and not negative, got -1"),
        ("luong", {"label_smoothing": 1.0}, r"^model\.label_smoothing must be in \[0, 1\), got 1"),
        ("bahdanau", {"hidden": 0}, r"^model\.hidden must be at least 1, got 0"),
        ("bahdanau", {"score": None}, r"^model/normalizer: there is no attention without a score"),
        ("gru_seq2seq", {"teacher_forcing": 2.0}, r"^model\.teacher_forcing must be in \[0, 1\], got 2"),
    ],
)
def test_what_is_out_of_range_is_one_line(model_of, name, options, message):
    with pytest.raises(ConfigError, match=message):
        model_of(name, **options)


@pytest.mark.parametrize("name", MODELS)
def test_images_are_not_translated(model_of, name):
    with pytest.raises(ConfigError, match=r"^model: it translates, and digits has no sentences with translations"):
        model_of(name, data=DataSpec("digits", (1, 8, 8), "binary"))


@pytest.mark.parametrize("what", [{"next_tokens": True}, {"n_hidden": 2}], ids=str)
def test_texts_to_model_are_not_translated_into_themselves(model_of, what):
    with pytest.raises(ConfigError, match=r"^model: it translates, and made up has no sentences with translations"):
        model_of("transformer", data=replace(DATA, **what))

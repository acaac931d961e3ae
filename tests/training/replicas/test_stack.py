"""A stacked model against its models by themselves, in float64: losses, gradients, buffers."""

import copy

import pytest
import torch
from torch import nn

from attelbo.data.batch import PAD, Batch
from attelbo.experiments import run
from attelbo.experiments.listing import choices, config_folders
from attelbo.models import Model, text_vae
from attelbo.seeding import derive_seed
from attelbo.training.replicas.functions import HostStreams, NotStackableError
from attelbo.training.replicas.stack import ModelStack, differing_numbers
from companions import SMALL_MODELS, words_for

N = 3


def build(runs, *words, n=N, numbers=()):
    """n models of different seeds in float64, and a batch for each; ``numbers`` are words for each of them."""
    models, batches = [], []
    configs = [runs.configure(*words, *own) for own in numbers or [()]]
    for seed, config in enumerate(configs if numbers else configs * n):
        model, data = run.assemble(config | {"seed": seed, "data": config["data"] | {"seed": seed}})
        models.append(model.double())
        rows = torch.arange(10) + 10 * seed
        batch = data.materialize(rows, "train")
        batches.append(batch._replace(x=batch.x.double() if batch.x.is_floating_point() else batch.x))
    if data.crops(torch.device("cpu")):  # as on a GPU, where all rows of a split are equally long
        longest = max(batch.x.shape[1] for batch in batches)
        batches = [b._replace(x=nn.functional.pad(b.x, (0, longest - b.x.shape[1]), value=PAD)) for b in batches]
    return models, batches


def seeded(replica: int) -> None:
    torch.default_generator.manual_seed(derive_seed(replica, "test"))


def expected_of(models, batches):
    """Terms of all players and gradients of copies of the models, one after the other; and the copies."""
    copies = copy.deepcopy(models)
    terms = []
    for replica, (model, batch) in enumerate(zip(copies, batches, strict=True)):
        seeded(replica)
        terms.append({})
        for player in model.players():
            own = player.losses(batch)
            for parameter in player.parameters:
                parameter.grad = None  # of a player before, which has taken its step
            own["loss"].backward(inputs=player.parameters)
            terms[-1] |= {player.prefix + name: value for name, value in own.items()}
    return terms, copies


def stacked_of(models, batches):
    streams = HostStreams(len(models))
    for replica in range(len(models)):
        seeded(replica)
        streams.keep(replica)
    stack = ModelStack(models)
    terms = {}
    for place, player in enumerate(models[0].players()):
        own = stack.losses(place, batches, streams)
        stack.backward(place, own["loss"])
        stack.hand_out_gradients(place)
        stack.clear_gradients(place)
        terms |= {player.prefix + name: value for name, value in own.items()}
    return terms, stack


def assert_equal(models, batches) -> None:
    expected, copies = expected_of(models, batches)
    terms, stack = stacked_of(models, batches)
    assert list(terms) == list(expected[0])
    for replica, own in enumerate(expected):
        for name, value in own.items():
            torch.testing.assert_close(terms[name][replica], value, rtol=1e-9, atol=1e-9)
    assert len({value.item() for value in terms["loss"]}) == len(models)  # else this would compare nothing
    for model, twin in zip(models, copies, strict=True):
        for (name, parameter), other in zip(model.named_parameters(), twin.parameters(), strict=True):
            assert (parameter.grad is None) == (other.grad is None), name
            if other.grad is not None:
                torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-7, atol=1e-10)
        for (name, buffer), other in zip(model.named_buffers(), twin.buffers(), strict=True):
            torch.testing.assert_close(buffer, other, msg=name)
    assert stack.is_whole()


# -- the contract: every part of the configuration -----------------------------------------------------

IN_TURNS = {("network", "bidirectional_gru")}
"""Parts whose replicas take turns: torch's fused recurrent units cannot be stacked."""

PARTS = [
    (group.removeprefix("model/"), choice)
    for group, names in choices(config_folders()).items()
    for choice in names
    if group.startswith("model/") and (group.removeprefix("model/"), choice) not in IN_TURNS
]
SIZES = {
    "mlp": ("hidden=[8]",),
    "conv": ("channels=[4,8]",),
    "latent_diffusion": ("channels=[8,8]", "groups=2"),
    "conv_attention": ("channels=[4,8]", "attention_at=[4]"),
    "resnet": ("channels=[8,8]", "groups=2"),
    "slots": ("channels=[4,4]",),
}


@pytest.mark.parametrize(("group", "choice"), PARTS, ids=lambda value: value)
def test_every_part_stacked_equals_itself_alone(runs, group, choice, monkeypatch):
    monkeypatch.setattr(text_vae, "_shapes_may_vary", lambda device: False)  # as on a GPU: on a CPU texts take turns
    without = [f"model/{group}=mlp", f"model.{group}.hidden=[8]"] if group in ("encoder", "decoder") else []
    sizes = [f"model.{group}.{size}" for size in SIZES.get(choice, ())]
    models, batches = build(WithoutWords(runs, without), *words_for(group, choice), *sizes, n=2)
    assert_equal(models, batches)


@pytest.mark.parametrize(("group", "choice"), sorted(IN_TURNS))
def test_a_part_that_cannot_be_stacked_says_so(runs, group, choice):
    models, batches = build(runs, *words_for(group, choice))
    with pytest.raises(NotStackableError, match="Batching rule not implemented"):
        stacked_of(models, batches)


def test_running_means_of_batch_norm(runs):
    models, batches = build(runs, "model.encoder.batch_norm=true", "model.decoder.batch_norm=true")
    assert_equal(models, batches)


@pytest.mark.parametrize("words", [("model=cvae",), ("model=m2", "data.n_labels=100")], ids=str)
def test_models_that_know_labels(runs, words):
    models, batches = build(runs, *words, "data.train_size=500")
    assert_equal(models, batches)


@pytest.mark.parametrize("name", ["draw", "draw_no_attention"])
def test_a_model_that_paints_in_strokes(runs, name):
    sizes = ("model.latent_dim=2", "model.hidden=8", "model.strokes=3")
    assert_equal(*build(WithoutWords(runs, SMALL_MODELS["vae"]), f"model={name}", "data.binarize=threshold", *sizes))


def test_a_model_that_finds_objects(runs):
    sizes = ("model.latent_dim=2", "model.hidden=8", "model.glimpse=4", "model.steps=2")
    small = WithoutWords(runs, SMALL_MODELS["vae"])
    assert_equal(*build(small, "model=air", "data.binarize=threshold", *sizes))


def test_a_model_of_slots(runs):
    assert_equal(*build(runs, "model=slot_autoencoder", "data.binarize=threshold"))


def test_a_model_whose_layers_attend_to_layers(runs):
    assert_equal(*build(runs, "model=deep_attentive_vae", "model.attention_at=[4]"))


@pytest.mark.parametrize("name", ["anp", "cnp"])
def test_models_of_functions(runs, name):
    assert_equal(*build(runs, f"model={name}"))


class WithoutWords:
    """Composes small runs without some of what makes them small."""

    def __init__(self, runs, without) -> None:
        self.runs = runs
        self.without = without

    def configure(self, *words):
        return self.runs.configure(*words, without=self.without)


@pytest.mark.parametrize("name", ["rae_gp", "rae_sn"])
def test_a_second_derivative_and_a_parametrization(runs, name):
    assert_equal(*build(runs, f"model={name}"))


# -- what models may keep ------------------------------------------------------------------------------


class Restless(Model):
    """Batch normalization and dropout, which change buffers and draw noise in the losses; tied weights."""

    def __init__(self) -> None:
        super().__init__({}, {"_target_": "attelbo.models.schedulers.Constant"})
        self.first = nn.Linear(4, 4)
        self.normalize = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(0.3)
        self.last = nn.Linear(4, 4)
        self.last.weight = self.first.weight
        self.scale = 1.0
        self.offset = 2

    def losses(self, batch: Batch):
        h = self.dropout(self.normalize(self.first(batch.x))).relu()
        loss = self.scale * (self.last(h) + self.offset * torch.rand_like(h)).square().mean()
        return {"loss": loss, "half": loss.detach() / 2}

    def evaluation_step(self, batch: Batch) -> None: ...

    def evaluation_results(self):
        return {}


@pytest.fixture
def restless():
    models, batches = [], []
    for seed in range(N):
        torch.manual_seed(seed)
        models.append(Restless().double())
        batches.append(Batch(torch.randn(6, 4, dtype=torch.float64), None, torch.arange(6)))
    return models, batches


def test_buffers_that_losses_change_and_tied_weights(restless):
    models, batches = restless
    assert_equal(models, batches)
    assert all(model.normalize.num_batches_tracked == 1 for model in models)


def test_numbers_may_differ(restless):
    models, batches = restless
    for model, scale in zip(models, (0.1, 1, 10.0), strict=True):
        model.scale = scale
    assert differing_numbers(models) == {("", "scale"): [0.1, 1.0, 10.0]}
    assert_equal(models, batches)
    assert [model.scale for model in models] == [0.1, 1, 10.0]


def test_a_weight_of_the_objective_and_free_bits(runs):
    weights = [(f"model.objective.weight={weight}", f"model.objective.free_bits={bits}") for weight, bits in
               ((0.0, 0.5), (1.0, 0.25), (4.0, 2.0))]  # fmt: skip
    models, batches = build(runs, numbers=weights)
    assert ("objective", "free_bits") in differing_numbers(models)
    assert_equal(models, batches)


def set_offset(models):
    models[1].offset = 3


def set_width(models):
    models[1].normalize = nn.BatchNorm1d(5)


def set_kind(models):
    models[1].dropout = nn.Identity()


def set_parts(models):
    models[1].extra = nn.Identity()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_offset, r"model\.offset: 2 and 3"),
        (set_width, r"model\.normalize\.weight: \(\(4,\), torch.float64\) and \(\(5,\)"),
        (set_kind, r"model\.dropout: Dropout and Identity"),
        (set_parts, "model: other parts"),
    ],
)
def test_what_must_not_differ_is_named(restless, change, message):
    models, _ = restless
    change(models)
    with pytest.raises(NotStackableError, match=message):
        ModelStack(models)


def test_a_number_that_decides_what_is_computed_is_named(restless):
    models, batches = restless

    class Deciding(Restless):
        def losses(self, batch):
            return super().losses(batch) if self.scale > 0.5 else {"loss": batch.x.mean()}

    for model in models:
        model.__class__ = Deciding
    models[0].scale = 0.1
    with pytest.raises(NotStackableError, match=r"model\.scale is not the same"):
        stacked_of(models, batches)
    assert [model.scale for model in models] == [0.1, 1.0, 1.0]  # and everything is where it was
    assert all(isinstance(parameter, nn.Parameter) for parameter in models[0].parameters())


def test_the_models_stay_ordinary(restless, tmp_path):
    """The identity of their parameters, what is loaded into them, a move of the storage."""
    models, batches = restless
    before = [list(model.parameters()) for model in models]
    states = [copy.deepcopy(model.state_dict()) for model in models]
    _, stack = stacked_of(models, batches)
    for model, own in zip(models, before, strict=True):
        assert all(now is then for now, then in zip(model.parameters(), own, strict=True))
    models[2].load_state_dict(states[0])
    assert stack.is_whole()
    assert_equal_state(models[2], states[0])
    models[1].first.weight.data = models[1].first.weight.data.clone()
    assert not stack.is_whole()


def assert_equal_state(model, state) -> None:
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_slices_keep_the_layout_of_the_parameters(runs):
    small = WithoutWords(runs, ["model/encoder=mlp", "model.encoder.hidden=[8]"])
    models, _ = build(small, "model/encoder=conv", "model.encoder.channels=[4,8]")
    strides = [parameter.stride() for parameter in models[0].parameters()]
    ModelStack(models)
    assert [parameter.stride() for parameter in models[1].parameters()] == strides

"""Text VAEs: their likelihood against quadrature and enumeration, padding, dropout of words, what they write."""

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from attelbo.data.batch import BOS, EOS, PAD, UNK, Batch, DataSpec
from attelbo.errors import ConfigError
from attelbo.latent import estimate_log_likelihood
from attelbo.models import TextVAE, build_language_model, build_recurrent_text_vae, build_transformer_text_vae
from attelbo.models.generation import Sampling
from attelbo.networks import Tokens, beam_search

V, T = 6, 5
"""PAD, BOS, EOS, UNK and two words; BOS and four more tokens."""
DATA = DataSpec("texts", (T,), "tokens", n_tokens=V, pads=True)
AROUND: dict[str, Any] = {
    "posterior": {"_target_": "attelbo.latent.DiagonalNormalPosterior"},
    "prior": {"_target_": "attelbo.latent.StandardNormal"},
    "objective": {"_target_": "attelbo.latent.ELBO"},
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-3},
    "scheduler": {"_target_": "attelbo.models.schedulers.Constant"},
}
ATTENTION: dict[str, Any] = {
    "attention": {"_target_": "attelbo.attention.MultiHeadAttention", "heads": 2},
    "score": {"_target_": "attelbo.attention.ScaledDot"},
    "normalizer": {"_target_": "attelbo.attention.Softmax"},
    "position": {"_target_": "attelbo.attention.Learned"},
    "network": {"_target_": "attelbo.networks.Transformer", "layers": 1},
}


PERCEIVER: dict[str, Any] = {
    "_target_": "attelbo.networks.PerceiverTextEncoder",
    **{"dim": 4, "n_latents": 2, "heads": 2},
}


def recurrent(data: DataSpec = DATA, latent_dim: int = 1, **options: Any) -> TextVAE:
    torch.manual_seed(0)
    return build_recurrent_text_vae(data, latent_dim=latent_dim, **{"embedding": 4, "hidden": 5, **AROUND, **options})


def transformer(data: DataSpec = DATA, latent_dim: int = 1, **options: Any) -> TextVAE:
    torch.manual_seed(0)
    pooling = {"_target_": "attelbo.networks.ClassToken"}
    given: dict[str, Any] = {"dim": 8, "pooling": pooling, **ATTENTION, **AROUND, **options}
    return build_transformer_text_vae(data, latent_dim=latent_dim, **given)


MODELS = {
    "gru": recurrent,
    "lstm": lambda: recurrent(cell="lstm", latent_into="both", share_embeddings=False),
    "memory": transformer,
    "embedding": lambda: transformer(latent_into="embedding"),
    "cross": lambda: transformer(latent_into="cross"),
    "perceiver, gru": lambda: recurrent(text_encoder=PERCEIVER),
    "perceiver, memory": lambda: transformer(text_encoder=PERCEIVER),
}


def moved(model: TextVAE, scale: float = 0.6) -> TextVAE:
    """Away from its initialization, in float64 and evaluation mode."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return model.double().eval()


@pytest.fixture(params=MODELS)
def model(request) -> TextVAE:
    return moved(MODELS[request.param]())


def rows(*texts: tuple[int, ...]) -> Tensor:
    """Texts without their ends, as the data have them."""
    whole = [torch.tensor([BOS, *text, EOS]) for text in texts]
    return torch.nn.utils.rnn.pad_sequence(whole, batch_first=True, padding_value=PAD)


X = rows((4, 5), (UNK,), (5, 5, 4), ())


# -- the likelihood ------------------------------------------------------------------------------------------


def step_by_step(model: TextVAE, x: Tensor, z: Tensor) -> Tensor:
    """log p(x|z) of one text x (U,) for each of z (n, D), (n,): token by token, as it is written."""
    writing = model.decoder.begin(z, T)
    total = torch.zeros(len(z), dtype=z.dtype)
    for told, next_one in itertools.pairwise(x.tolist()):
        log_p = writing.advance(torch.full((len(z),), told)).log_softmax(-1)
        total = total + log_p[:, next_one]
    return total


def by_quadrature(model: TextVAE, x: Tensor) -> Tensor:
    """log p(x) of one text x (U,), the integral over z in one dimension."""
    z = torch.linspace(-9, 9, 601, dtype=torch.float64).unsqueeze(1)
    log_prior = -0.5 * (z[:, 0].square() + math.log(2 * math.pi))
    return (step_by_step(model, x, z) + log_prior).logsumexp(0) + math.log(18 / 600)


@torch.no_grad()
def test_the_nll_of_importance_samples_is_that_of_quadrature(model) -> None:
    model.posterior.head.weight.mul_(0.05)  # an encoder as wide as the prior, which few samples can do with
    model.posterior.head.bias.copy_(torch.tensor([0.2, 0.1]))
    torch.manual_seed(0)
    found = estimate_log_likelihood(model.weight_sampler(X), 4000, 1000)
    exact = torch.stack([by_quadrature(model, x[x != PAD]) for x in X])
    assert ((found.log_likelihood - exact).abs() < 5 * found.standard_error + 1e-6).all()
    assert (found.standard_error < 0.05).all()


@torch.no_grad()
@pytest.mark.parametrize("name", ["gru", "cross"])
def test_all_texts_together_have_probability_one(name) -> None:
    model = moved(MODELS[name]())
    bias = model.decoder.output.bias
    bias[[PAD, BOS]] = -1e9  # which are in the vocabulary, and no part of a text
    words = (UNK, 4, 5)
    ended = [torch.tensor([BOS, *text, EOS]) for n in range(3) for text in itertools.product(words, repeat=n)]
    going_on = [torch.tensor([BOS, *text]) for text in itertools.product(words, repeat=3)]
    total = torch.stack([by_quadrature(model, x) for x in (*ended, *going_on)]).logsumexp(0)
    torch.testing.assert_close(total.exp(), torch.ones((), dtype=torch.float64), rtol=1e-6, atol=0)


@torch.no_grad()
def test_the_bound_is_below_and_its_terms_are_what_they_are_called(model) -> None:
    torch.manual_seed(0)
    evidence = model.evidence(X, n_samples=2000)
    exact = torch.stack([by_quadrature(model, x[x != PAD]) for x in X])
    noise = evidence.log_likelihood.std(0) / 2000**0.5
    assert (evidence.elbo < exact + 5 * noise).all()
    q = model.infer(X)
    assert isinstance(model.prior.exact_kl(q), Tensor)
    torch.testing.assert_close(evidence.kl, model.prior.exact_kl(q))


def test_no_logits_of_padding_neither_in_evaluation_nor_in_training(model) -> None:
    z, read = torch.randn(3, len(X), 1, dtype=torch.float64), list[int]()
    by_hand = torch.stack([step_by_step(model, x[x != PAD], z[:, i]) for i, x in enumerate(X)], 1)
    model.decoder.output.register_forward_hook(lambda module, given, logits: read.append(logits[..., 0].numel()))
    torch.testing.assert_close(model.explain(z, X)[0], by_hand)
    model.training = True  # without what its parts would do differently
    torch.testing.assert_close(model.explain(z, X)[0], by_hand)
    assert read == [3 * int(model.n_predicted(X).sum())] * 2


def test_padding_changes_nothing(model) -> None:
    longer = F.pad(rows((4, 5), ()), (0, 1), value=PAD)
    z = torch.randn(2, 2, 1, dtype=torch.float64)
    torch.testing.assert_close(model.explain(z, longer)[0], model.explain(z, longer[:, :-1])[0])
    torch.testing.assert_close(model.encode(longer), model.encode(longer[:, :-1]))
    torch.testing.assert_close(model.encode(longer)[1:], model.encode(longer[1:, :2]))


@pytest.mark.parametrize("latent_into", ["memory", "embedding", "cross"])
def test_z_reaches_every_token_whatever_tokens_a_mask_hides(latent_into: str) -> None:
    mask = {"_target_": "attelbo.attention.Block", "size": 1}
    decoder = moved(transformer(latent_into=latent_into, n_memory=3, mask=mask)).decoder
    tokens, z = torch.tensor([[BOS, 4, 5, 4]]), torch.zeros(1, 1, dtype=torch.float64)
    features, others = decoder(z, tokens), decoder(z + 1, tokens)
    assert (features != others).any(-1).all()
    decoding = decoder.begin(z, 4)
    steps = [decoding.advance(token) for token in tokens.unbind(1)]
    torch.testing.assert_close(torch.stack(steps, 1), decoder.output(features))


def test_what_stands_for_padding_does_not_matter() -> None:
    model = moved(recurrent())
    z = torch.randn(2, len(X), 1, dtype=torch.float64)
    before = model.explain(z, X)[0], model.encode(X)
    model.explain(z, X)[0].sum().backward()
    vectors = model.decoder.embedding.weight  # pyright: ignore[reportAttributeAccessIssue]
    assert vectors.grad is not None
    assert (vectors.grad[PAD] == 0).all()
    with torch.no_grad():
        vectors[PAD] = 1e9
    torch.testing.assert_close((model.explain(z, X)[0], model.encode(X)), before)


# -- words that are dropped -----------------------------------------------------------------------------------


def test_dropped_words_are_inputs_of_the_decoder_alone(monkeypatch) -> None:
    data = DataSpec("texts", (40,), "tokens", n_tokens=V, pads=True)
    model = recurrent(data, word_dropout=0.3)
    seen: dict[str, list[Tensor]] = {"read": [], "told": [], "asked": []}

    def spy(name: str, place: int, module: Any, method: str) -> None:
        original = getattr(module, method)

        def call(*given: Tensor) -> Any:
            seen[name].append(given[place])
            return original(*given)

        monkeypatch.setattr(module, method, call)

    spy("read", 0, model.encoder, "forward")
    spy("told", 1, model.decoder, "forward")
    spy("asked", 1, model.likelihood, "log_prob_of_tokens")
    x = rows(*[tuple(torch.randint(4, V, (38,)).tolist()) for _ in range(200)], (4,))
    model.train().evidence(x, n_samples=2)
    (read,), (told,), (asked,) = seen["read"], seen["told"], seen["asked"]
    assert torch.equal(read, x)
    targets = x[:, 1:]
    assert torch.equal(asked, targets[targets != PAD].repeat(2))
    right = x[:, :-1].repeat(2, 1)
    dropped = told != right
    assert (told[dropped] == UNK).all()
    assert not dropped[right <= EOS].any()
    share = dropped[right > EOS].double().mean()
    assert abs(share - 0.3) < 5 * (0.3 * 0.7 / (right > EOS).sum()) ** 0.5
    seen["told"].clear()
    model.eval().evidence(x)
    assert torch.equal(seen["told"][0], x[:, :-1])


# -- what is reported ------------------------------------------------------------------------------------------


def test_numbers_for_each_token_are_ratios_of_sums_whatever_the_batches(model) -> None:
    def results(*sizes: int) -> dict[str, float]:
        torch.manual_seed(0)
        for part in X.split(sizes):
            noise_free = part[:, : int((part != PAD).sum(1).max())]
            model.evaluation_step(Batch(noise_free, None, torch.arange(len(part))))
        return {name: float(value) for name, value in model.evaluation_results().items()}

    whole = results(4)
    assert whole["tokens"] == (3 + 2 + 4 + 1) / 4
    assert whole["kl_per_token"] == pytest.approx(4 * whole["kl"] / 10)
    assert whole["perplexity_bound"] == pytest.approx(math.exp(-4 * whole["elbo"] / 10))
    assert whole["loss"] == pytest.approx(-whole["elbo"])
    assert "bits_per_dim" not in whole
    parts = results(1, 3)
    assert parts["kl"] == pytest.approx(whole["kl"])
    assert parts["kl_per_token"] == pytest.approx(whole["kl_per_token"])
    assert {measure.key for measure in model.measures} >= {"kl_per_token", "perplexity_bound", "active_units", "elbo"}


# -- what is written -------------------------------------------------------------------------------------------


def test_the_likeliest_text_is_that_of_a_greedy_search(model) -> None:
    z = 3 * torch.randn(50, 1, dtype=torch.float64)
    written = model.generate(z)
    found = beam_search(model.decoder.begin(z, T), 50, Tokens(PAD, BOS, EOS), max_length=T - 1).tokens
    assert (written[:, 0] == BOS).all()
    torch.testing.assert_close(written[:, 1:], found)


def test_texts_end_once_and_hold_no_other_marks(model) -> None:
    torch.manual_seed(0)
    written = model.sample(200, sampling=Sampling(2.0))
    assert written.shape[1] <= T
    ended = (written == EOS).cumsum(1)
    assert (ended <= 1).all()
    behind = ended - (written == EOS).long() == 1
    assert ((written == PAD) == behind).all()
    assert (written[:, 1:] != BOS).all()
    assert len(written.unique(dim=0)) > 10


def test_samples_have_the_frequencies_of_the_model() -> None:
    model = moved(recurrent())
    with torch.no_grad():
        model.decoder.output.bias[[PAD, BOS]] = -1e9
    torch.manual_seed(0)
    written = model.sample(20_000, sampling=Sampling())
    text = torch.tensor([BOS, 4, EOS])
    share = (F.pad(written, (0, T - written.shape[1]))[:, :3] == text).all(1).double().mean()
    p = by_quadrature(model, text).exp()
    assert abs(share - p) < 5 * (p * (1 - p) / 20_000) ** 0.5


def test_reconstructions_are_what_the_center_says(model) -> None:
    assert torch.equal(model.reconstruct(X), model.generate(model.encode(X)))


def test_learned_queries_learn_to_read_words_and_their_order() -> None:
    """Of eight texts of three words, who knows the words alone is left with 6 / 8 log 3 nats, who knows nothing with
    3 log 2."""
    x = rows(*itertools.product((4, 5), repeat=3))
    objective = {"_target_": "attelbo.latent.ELBO", "weight": 0.02}
    encoder = {**PERCEIVER, "dim": 16}
    model = recurrent(latent_dim=4, embedding=8, hidden=16, text_encoder=encoder, objective=objective)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    batch = Batch(x, None, torch.arange(len(x)))
    for _ in range(150):
        optimizer.zero_grad()
        model.losses(batch)["loss"].backward()
        optimizer.step()
    assert model.eval().evidence(x, n_samples=50).distortion.mean() < 0.8 * 6 / 8 * math.log(3)


# -- against collapse ------------------------------------------------------------------------------------------


def test_a_cycle_of_the_weight_begins_anew() -> None:
    weight = {"_target_": "attelbo.latent.schedules.Cyclical", "n_cycles": 2}
    model = recurrent(objective={"_target_": "attelbo.latent.ELBO", "weight": weight})
    found = []
    for step in range(8):
        model.at_step(step, 8)
        evidence = model.evidence(X)
        weighed = model.objective(evidence) - evidence.distortion
        found.append((weighed / evidence.rate).item())
    assert found == pytest.approx([0.0, 0.5, 1.0, 1.0] * 2, abs=1e-5)


def test_the_bound_does_not_know_of_free_bits_or_weights() -> None:
    objective = {"_target_": "attelbo.latent.ELBO", "weight": 0.25, "free_bits": 5.0}
    plain, cured = recurrent(), recurrent(objective=objective)
    batch = Batch(X, None, torch.arange(len(X)))
    torch.manual_seed(0)
    terms = plain.losses(batch)
    torch.manual_seed(0)
    others = cured.losses(batch)
    torch.testing.assert_close(others["elbo"], terms["elbo"])
    torch.testing.assert_close(others["loss"], terms["reconstruction"] + 0.25 * 5.0)


def test_a_lagging_decoder_keeps_its_own_words() -> None:
    objective = {"_target_": "attelbo.latent.Lagging", "inner_steps": 3}
    model = recurrent(objective=objective, share_embeddings=False)
    (player,) = model.players()
    ((_, waiting, _),) = player.rates
    assert set(waiting) == set(model.decoder.parameters())
    shared = recurrent(objective=objective).players()[0].rates[0][1]
    assert {parameter.shape for parameter in waiting} - {parameter.shape for parameter in shared} == {(V, 4)}


def test_batch_normalization_keeps_the_kl_up_in_training() -> None:
    posterior = {"_target_": "attelbo.latent.BatchNormalizedPosterior", "gamma": 1.2, "eps": 1e-9}
    model = recurrent(latent_dim=3, posterior=posterior).train()
    plain = recurrent(latent_dim=3)
    with torch.no_grad():
        for parameter in plain.posterior.parameters():
            parameter.mul_(0.1)
        for parameter in model.posterior.parameters():
            parameter.mul_(0.1)  # a posterior that is as good as the prior
    assert plain.evidence(X).rate < 0.1
    assert model.evidence(X).rate > 0.9 * 3 * 1.2**2 / 2


# -- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"data": DataSpec("digits", (1, 8, 8), "binary")}, "model: a text VAE takes texts, .* which digits has not"),
        ({"data": DataSpec("stream", (T,), "tokens", n_tokens=V)}, "model: a text VAE takes texts"),
        ({"latent_dim": 0}, "model.latent_dim must be at least 1, got 0"),
        ({"hidden": 0}, "model.hidden must be at least 1, got 0"),
        ({"word_dropout": 1.0}, r"model.word_dropout must be in \[0, 1\), got 1.0"),
        ({"dropout": -0.1}, r"model.dropout must be in \[0, 1\), got -0.1"),
        (
            {"text_encoder": {**PERCEIVER, "heads": 3}},
            "model.text_encoder: heads must divide the 4 features of a token: .*, got 3",
        ),
        (
            {"text_encoder": PERCEIVER, "directions": "both"},
            "model.directions=both is how recurrent units read; .*PerceiverTextEncoder .* has none",
        ),
        ({"cell": "rnn"}, "model.cell must be gru or lstm, got 'rnn'"),
        (
            {"posterior": {"_target_": "attelbo.latent.VectorQuantizedPosterior"}},
            "model/prior: StandardNormal is no prior for the latents of VectorQuantizedPosterior",
        ),
        (
            {
                "posterior": {"_target_": "attelbo.latent.posteriors.DeterministicPosterior"},
                "objective": {"_target_": "attelbo.latent.RAE"},
            },
            "model/objective: RAE needs the decoder's output for z alone, and a text is decoded token by token",
        ),
        (
            {"prior": {"_target_": "attelbo.latent.VampPrior"}},
            "model/prior: VampPrior makes posteriors of learned data, and tokens are not learned",
        ),
    ],
)
def test_what_does_not_fit_is_refused(options, told) -> None:
    with pytest.raises(ConfigError, match=rf"^{told}"):
        recurrent(**options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"n_memory": 0}, "model.n_memory must be at least 1, got 0"),
        ({"dim": 0}, "model.dim must be at least 1, got 0"),
        ({"latent_into": "state"}, "model.latent_into must be memory or embedding or cross, got 'state'"),
    ],
)
def test_a_transformer_refuses_what_does_not_fit(options, told) -> None:
    with pytest.raises(ConfigError, match=rf"^{told}$"):
        transformer(**options)


def test_a_text_cannot_be_decoded_of_z_alone() -> None:
    with pytest.raises(NotImplementedError, match="token by token"):
        recurrent().decode(torch.zeros(1, 1, 1))


def test_a_language_model_refuses_texts_without_answers() -> None:
    around = {key: AROUND[key] for key in ("optimizer", "scheduler")}
    with pytest.raises(ConfigError, match=r"^model: a language model predicts tokens in their places, which texts"):
        build_language_model(DATA, dim=8, **ATTENTION, **around)

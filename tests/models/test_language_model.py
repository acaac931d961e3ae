"""Language models: losses and groups by hand, decoding with caches, what they draw against their own distribution."""

import itertools
import math
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch.nn import functional as F

from attelbo.attention import Document
from attelbo.data.batch import Batch, DataSpec
from attelbo.errors import ConfigError, UserError
from attelbo.experiments.listing import choices, package_folder
from attelbo.models import LanguageModel, build_language_model
from attelbo.models.generation import Sampling
from companions import model_of, words_for

T, V = 8, 5
ADAM = {"_target_": "torch.optim.AdamW", "lr": 1e-3, "weight_decay": 0.1}
CONSTANT = {"_target_": "attelbo.models.schedulers.Constant"}


def untrained(data: DataSpec | None = None, **options: Any) -> LanguageModel:
    """A small model."""
    given: dict[str, Any] = {
        "attention": {"_target_": "attelbo.attention.MultiHeadAttention", "heads": 2},
        "score": {"_target_": "attelbo.attention.ScaledDot"},
        "normalizer": {"_target_": "attelbo.attention.Softmax"},
        "position": {"_target_": "attelbo.attention.Learned"},
        "network": {"_target_": "attelbo.networks.Transformer", "layers": 2},
        "dim": 8,
        "optimizer": ADAM,
        "scheduler": CONSTANT,
    }
    torch.manual_seed(0)
    return build_language_model(data or DataSpec("letters", (T,), "tokens", n_tokens=V), **(given | options))


def made(data: DataSpec | None = None, **options: Any) -> LanguageModel:
    """The same away from its initialization, in float64 and evaluation mode."""
    return randomized(untrained(data, **options))


def randomized(model: LanguageModel) -> LanguageModel:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.double().eval()


def tokens(n: int, length: int = T, seed: int = 0) -> torch.Tensor:
    return torch.randint(V, (n, length), generator=torch.Generator().manual_seed(seed))


# -- losses ------------------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_over_predicted_tokens():
    model, x = made(), tokens(3)
    y = tokens(3, seed=1)
    y[0, :5] = y[2, 3] = -1
    log_p = model(x).log_softmax(-1)
    by_hand = [-log_p[b, t, y[b, t]] for b in range(3) for t in range(T) if y[b, t] >= 0]
    assert len(by_hand) == 18
    torch.testing.assert_close(model.losses(Batch(x, y, torch.arange(3)))["loss"], sum(by_hand) / 18)


@pytest.mark.parametrize("n_predicted", [1, 3])
def test_logits_of_the_predicted_places_only(n_predicted):
    data = DataSpec("answers", (T,), "tokens", n_tokens=V, answer_length=3)
    model, x, y = made(data), tokens(4), torch.full((4, T), -1)
    for row in range(4):
        places = torch.randperm(T)[:n_predicted]
        y[row, places] = tokens(1, n_predicted, seed=row)[0]
    batch = Batch(x, y, torch.arange(4))
    expected = F.cross_entropy(model(x).flatten(0, 1), y.flatten(), ignore_index=-1)
    torch.testing.assert_close(model.losses(batch)["loss"], expected)
    assert model._predictions(batch)[0].shape == (4, 3, 8)
    model.evaluation_step(batch)
    right = ((model(x).argmax(-1) == y) | (y < 0)).all(-1)
    results = model.evaluation_results()
    torch.testing.assert_close(results["loss"], expected.float())
    assert float(results["exact"]) == float(right.float().mean())


def test_no_token_tells_of_those_behind_it():
    model, x = made(), tokens(1)
    for t in range(T - 1):
        other = x.clone()
        other[:, t + 1 :] = (other[:, t + 1 :] + 1) % V
        torch.testing.assert_close(model(other)[:, : t + 1], model(x)[:, : t + 1])
    both = made(causal=False)
    other = x.clone()
    other[:, -1] = (other[:, -1] + 1) % V
    assert not torch.allclose(both(other)[:, 0], both(x)[:, 0])


def test_a_document_does_not_see_the_one_before():
    model, x = made(position={"_target_": "attelbo.attention.NoPosition"}), tokens(2)
    segments = torch.tensor([[0] * 3 + [1] * 5, [0] * 6 + [-1] * 2])
    together = model(x, segments)
    torch.testing.assert_close(together[:1, 3:], model(x[:1, 3:]))
    torch.testing.assert_close(together[1:, :6], model(x[1:, :6]))
    assert not torch.allclose(model(x)[:1, 3:], model(x[:1, 3:]))


def test_padding_is_not_seen_from_anywhere():
    kinds = DataSpec("a kind for each token", (T,), "tokens", n_tokens=V)
    data = DataSpec("padded", (T,), "tokens", n_tokens=V, pads=True, target=kinds)
    model = made(data, causal=False)
    x = tokens(2) % (V - 1) + 1
    x[1, 5:] = 0
    torch.testing.assert_close(model(x)[1:, :5], model(x[1:, :5]))


def test_tied_weights_are_one_parameter():
    model, free = made(), made(tie_weights=False)
    names = {name for name, _ in free.named_parameters()} - {name for name, _ in model.named_parameters()}
    assert names == {"head.weight"}
    assert model.head is None
    x = tokens(2)
    torch.testing.assert_close(model(x), model.features(x) @ model.embedding.vectors.weight.T)


KINDS_OF_ATTENTION = {
    "MultiHeadAttention": {},
    "LatentAttention": {"latent_dim": 32},
    "GatedAttention": {},
    "ForgettingAttention": {},
}


@pytest.mark.parametrize("kind", KINDS_OF_ATTENTION)
def test_initialization_is_that_of_gpt_2(kind):
    attention = {"_target_": f"attelbo.attention.{kind}", "heads": 2, **KINDS_OF_ATTENTION[kind]}
    model = untrained(DataSpec("letters", (T,), "tokens", n_tokens=300), dim=128, attention=attention)
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            expected = 0.0 if name.endswith("bias") else 1.0
            assert bool((parameter == expected).all()), name
            continue
        added = name.endswith(("attention.output.weight", "feed_forward.second.weight"))
        std = 0.02 / math.sqrt(2 * 2) if added else 0.02
        # The standard deviation of an estimate from n normal numbers is std / sqrt(2 n).
        assert abs(float(parameter.detach().std()) - std) < 5 * std / math.sqrt(2 * parameter.numel()), name


# -- hidden tokens -----------------------------------------------------------------------------------------

HIDDEN = DataSpec("hidden", (T,), "tokens", n_tokens=V + 1, n_hidden=2)


def test_hidden_tokens_are_told_in_their_places_from_both_sides():
    model, x = made(HIDDEN, causal=False), tokens(3)
    y = torch.full_like(x, -1)
    for row, place in ((0, 0), (0, 5), (1, 7), (2, 3)):
        y[row, place] = x[row, place]
        x[row, place] = V
    batch = Batch(x, y, torch.arange(3))
    log_p = model(x).log_softmax(-1).detach()
    said = [log_p[row, place, y[row, place]] for row, place in ((0, 0), (0, 5), (1, 7), (2, 3))]
    torch.testing.assert_close(model.losses(batch)["loss"], -sum(said) / 4)
    for part in (slice(0, 1), slice(1, 3)):
        model.evaluation_step(Batch(x[part], y[part], torch.arange(3)[part]))
    results = model.evaluation_results()
    assert results.keys() == {"loss", "accuracy"}, "neither bits per character nor perplexity: it is no density"
    assert float(results["loss"]) == pytest.approx(float(-sum(said) / 4), rel=1e-6)
    assert model.measures[0].unit == "nats per hidden token, the others seen"
    x_other = x.clone()
    x_other[0, 7] = (x[0, 7] + 1) % V
    assert (model(x_other)[0, 0] - model(x)[0, 0]).abs().max() > 1e-6


def test_what_a_model_would_copy_or_cannot_see_is_refused():
    following = DataSpec("letters", (T,), "tokens", n_tokens=V, next_tokens=True)
    with pytest.raises(ConfigError, match=r"model.causal=false sees the next tokens of letters.*data.masked=0.15"):
        untrained(following, causal=False)
    with pytest.raises(ConfigError, match=r"model.causal: hidden hides tokens .* model.causal=false sees them"):
        untrained(HIDDEN)
    with pytest.raises(UserError, match="cannot continue a text"):
        made(HIDDEN, causal=False).generate(tokens(1, 2), 2)


# -- a prefix that is seen from both sides -----------------------------------------------------------------


def test_all_of_a_prefix_is_seen_from_its_tokens_and_nothing_behind_it():
    model, x, prefix = made(prefix=True), tokens(2), torch.tensor([1, 4])
    said = model(x, prefix=prefix)
    for place in range(T):
        other = x.clone()
        other[:, place] = (x[:, place] + 1) % V
        changed = (model(other, prefix=prefix) - said).abs().amax(-1) > 1e-9
        for row, n in enumerate(prefix.tolist()):
            assert changed[row].tolist() == [t >= place or max(t, place) < n for t in range(T)]
    torch.testing.assert_close(model(x), model(x, prefix=torch.tensor([1, 1])))


def test_the_loss_is_of_what_follows_a_drawn_prefix():
    model, x, y = made(prefix=True).train(), tokens(3), tokens(3, seed=1)
    y[1, :3] = y[2, 6:] = -1
    first, last = [0, 3, 0], [7, 7, 5]
    torch.manual_seed(0)
    drawn = torch.stack([model.prefix_of(y) for _ in range(8_000)])
    for row in range(3):
        counts = torch.bincount(drawn[:, row], minlength=T + 1)[first[row] + 1 : last[row] + 2]
        assert int(counts.sum()) == 8_000
        assert chisquare(counts.numpy()).pvalue > 1e-3
    torch.manual_seed(1)
    prefix = model.prefix_of(y)
    log_p = model(x, prefix=prefix).log_softmax(-1)
    told = [(b, t) for b in range(3) for t in range(int(prefix[b]) - 1, T) if y[b, t] >= 0]
    torch.manual_seed(1)
    expected = -sum(log_p[b, t, y[b, t]] for b, t in told) / len(told)
    torch.testing.assert_close(model.losses(Batch(x, y, torch.arange(3)))["loss"], expected)
    model.eval()
    assert model.prefix_of(y).tolist() == [1, 4, 1]
    log_p = model(x, prefix=torch.tensor([1, 4, 1])).log_softmax(-1)
    told = [(b, t) for b in range(3) for t in range(T) if y[b, t] >= 0]
    expected = -sum(log_p[b, t, y[b, t]] for b, t in told) / len(told)
    torch.testing.assert_close(model.losses(Batch(x, y, torch.arange(3)))["loss"], expected)


def test_a_prompt_is_a_prefix():
    model, prompt = made(prefix=True), tokens(3, 4)
    expected, n = prompt, torch.full((3,), 4)
    for _ in range(4):
        expected = torch.cat([expected, model(expected, prefix=n)[:, -1].argmax(-1, keepdim=True)], 1)
    assert torch.equal(model.generate(prompt, 4, temperature=0), expected)
    assert not torch.allclose(model(prompt), model(prompt, prefix=n))


def test_documents_beside_each_other_have_their_own_part_of_a_prefix():
    model, x = made(prefix=True, position={"_target_": "attelbo.attention.NoPosition"}), tokens(2)
    segments, prefix = torch.tensor([[0] * 3 + [1] * 5] * 2), torch.tensor([5, 5])
    together = model(x, segments, prefix)
    torch.testing.assert_close(together[:, :3], model(x[:, :3], prefix=torch.tensor([3, 3])))
    torch.testing.assert_close(together[:, 3:], model(x[:, 3:], prefix=torch.tensor([2, 2])))


@pytest.mark.parametrize("options", [{"causal": False}, {"score": None}])
def test_a_prefix_is_of_models_that_predict_one_token_after_the_other(options):
    with pytest.raises(ConfigError, match=r"model.prefix needs model.causal=true, and attention with a mask"):
        made(prefix=True, **options)


# -- decoding ----------------------------------------------------------------------------------------------

CHOICES = choices([package_folder()])
PARTS = [
    (group, choice)
    for group in ("attention", "mask", "normalizer", "position", "score")
    for choice in CHOICES[f"model/{group}"]
    if str(model_of(group, choice)).endswith("gpt")
]


@pytest.mark.parametrize(("group", "choice"), PARTS, ids=[f"{group}={choice}" for group, choice in PARTS])
def test_decoding_with_caches_equals_all_at_once(runs, group, choice):
    from attelbo.experiments import run

    model, data = run.assemble(runs.configure(*words_for(group, choice), "model.network.layers=2"))
    assert isinstance(model, LanguageModel)
    model = randomized(model)
    length = data.spec.shape[0]
    x = torch.randint(data.spec.n_tokens or 0, (3, length), generator=torch.Generator().manual_seed(0))
    caches = model.network.caches(length)
    pieces = [(0, 4), *((t, t + 1) for t in range(4, length))]
    last = [model._next_logits(x[:, start:end], start, caches) for start, end in pieces]
    expected = model(x)
    for (_, end), logits in zip(pieces, last, strict=True):
        torch.testing.assert_close(logits, expected[:, end - 1])


def test_greedy_takes_the_likeliest_token():
    model, prompt = made(), tokens(3, 2)
    generated = model.generate(prompt, 5, temperature=0)
    expected = prompt
    for _ in range(5):
        expected = torch.cat([expected, model(expected)[:, -1].argmax(-1, keepdim=True)], 1)
    assert torch.equal(generated, expected)


def test_a_window_slides_only_if_told():
    model, prompt = made(), tokens(2, 6)
    message = r"to continue 6 tokens by 4 takes a context of 9 tokens, 1 more than the 8 of the model; truncate=true"
    with pytest.raises(UserError, match=message):
        model.generate(prompt, 4)
    assert model.generate(prompt, 3).shape == (2, 9)  # nothing is asked about the last one
    expected = prompt
    for _ in range(6):
        expected = torch.cat([expected, model(expected[:, -8:])[:, -1].argmax(-1, keepdim=True)], 1)
    assert torch.equal(model.generate(prompt, 6, temperature=0, truncate=True), expected)
    long = tokens(1, 12)
    assert torch.equal(model.generate(long, 1, temperature=0, truncate=True)[:, :12], long)


def test_without_a_table_of_places_there_is_no_end():
    model = made(position={"_target_": "attelbo.attention.Alibi"})
    assert model.limit is None
    prompt = tokens(2, 3)
    generated = model.generate(prompt, 2 * T, temperature=0)
    assert torch.equal(generated[:, -1], model(generated[:, :-1])[:, -1].argmax(-1))


def test_all_continuations_have_probability_one_and_are_drawn_with_theirs():
    model, prompt = made(), tokens(1, 2)
    continuations = torch.tensor(list(itertools.product(range(V), repeat=3)))
    rows = torch.cat([prompt.expand(len(continuations), -1), continuations], 1)
    log_p = model(rows[:, :-1]).log_softmax(-1)[:, 1:].gather(-1, continuations.unsqueeze(-1)).sum((1, 2))
    probabilities = log_p.detach().exp()
    assert float(probabilities.sum()) == pytest.approx(1, abs=1e-12)
    n = 20_000
    torch.manual_seed(3)
    drawn = model.generate(prompt.expand(n, -1), 3)[:, 2:]
    counts = torch.bincount((drawn * torch.tensor([V * V, V, 1])).sum(1), minlength=V**3)
    assert float(n * probabilities.min()) >= 5
    assert chisquare(counts.numpy(), (n * probabilities / probabilities.sum()).numpy()).pvalue > 1e-3


def enumerated(
    logits: list[float], temperature: float, top_k: int | None, top_p: float | None, min_p: float | None
) -> list[float]:
    weights = [math.exp(logit / temperature) for logit in logits]
    kept = sorted(range(len(logits)), key=lambda token: -weights[token])[:top_k]
    if top_p is not None:
        total, mass, nucleus = sum(weights[token] for token in kept), 0.0, []
        for token in kept:
            nucleus.append(token)
            mass += weights[token] / total
            if mass >= top_p:
                break
        kept = nucleus
    if min_p is not None:
        kept = [token for token in kept if weights[token] >= min_p * max(weights)]
    return [weights[token] / sum(weights[k] for k in kept) if token in kept else 0.0 for token in range(len(logits))]


@pytest.mark.parametrize("temperature", [0.5, 3.0])
@pytest.mark.parametrize("top_k", [None, 1, 3, 99])
@pytest.mark.parametrize("top_p", [None, 0.01, 0.5, 0.6, 1.0])
@pytest.mark.parametrize("min_p", [None, 0.0, 0.7, 1.0])
def test_what_may_be_drawn_against_enumeration(temperature, top_k, top_p, min_p):
    even = [0.0] * 4 + [-math.inf] * 2  # two of them have probability 0.5, no more and no less
    rows = [[0.1, 2.0, -1.0, 1.5, 0.3, -4.0], [0.0, 0.1, 0.2, 0.3, 0.4, 0.5], even]
    found = Sampling(temperature, top_k, top_p, min_p).probabilities(torch.tensor(rows, dtype=torch.float64))
    for row, probabilities in zip(rows, found.tolist(), strict=True):
        assert probabilities == pytest.approx(enumerated(row, temperature, top_k, top_p, min_p), abs=1e-12)


HALVES = [0.5, 0.25, 0.125, 0.125]
"""A token tells 1.75 bits on average; these tell 1, 2, 3 and 3."""


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({}, [4, 2, 1, 1]),
        ({"temperature": 0.5}, [16, 4, 1, 1]),
        ({"top_k": 2}, [2, 1, 0, 0]),
        ({"top_p": 0.8}, [4, 2, 1, 0]),
        ({"min_p": 0.3}, [2, 1, 0, 0]),
        ({"typical_p": 0.2}, [0, 1, 0, 0]),
        ({"typical_p": 0.26}, [2, 1, 0, 0]),
        ({"typical_p": 0.8}, [4, 2, 1, 0]),
        ({"typical_p": 1.0}, [4, 2, 1, 1]),
        ({"top_k": 1, "typical_p": 0.1}, [1, 0, 0, 0]),
        ({"temperature": 0.5, "typical_p": 0.1}, [1, 0, 0, 0]),  # 0.46, 2.46 and 4.46 bits, 1.28 on average
        ({"min_p": 0.3, "typical_p": 0.3}, [1, 0, 0, 0]),  # 2/3 and 1/3: 0.58 and 1.58 bits, 0.92 on average
    ],
)
def test_what_is_drawn_of_a_distribution_whose_bits_are_known(options, shares):
    places = torch.tensor([2, 0, 3, 1])  # whatever the order; of equals the first comes first
    logits = torch.tensor(HALVES, dtype=torch.float64).log()[places].expand(20_000, -1)
    expected = (torch.tensor(shares, dtype=torch.float64) / sum(shares))[places]
    torch.testing.assert_close(Sampling(**options).probabilities(logits), expected.expand_as(logits))
    torch.manual_seed(0)
    counts = torch.bincount(Sampling(**options).draw(logits), minlength=4)
    there = expected > 0
    assert int(counts[~there].sum()) == 0
    assert chisquare(counts[there].numpy(), 20_000 * expected[there].numpy()).pvalue > 1e-3 or int(there.sum()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature must be at least 0"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\], got 0.0"),
        ({"typical_p": 0.0}, r"typical_p must be in \(0, 1\], got 0.0"),
        ({"min_p": 1.5}, r"min_p must be in \[0, 1\], got 1.5"),
        ({"length": 0}, "prompt and length must be at least 1 token, got 2 and 0"),
        ({"prompt": torch.tensor([[1, V]])}, r"tokens of a prompt must be in 0\.\.4, got \[1, 5\]"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(options, message):
    with pytest.raises(UserError, match=message):
        made().generate(**({"prompt": tokens(1, 2), "length": 2} | options))


def test_what_sees_all_of_a_row_does_not_go_on():
    with pytest.raises(UserError, match="a model that sees all of a row"):
        made(causal=False).generate(tokens(1, 2), 2)


# -- what does not fit -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (DataSpec("digits", (1, 8, 8), "binary", 10), {}, "a language model takes tokens, digits has binary"),
        (DataSpec("reviews", (9,), "tokens", 2, n_tokens=7), {}, "predicts tokens in their places, which reviews"),
        (None, {"context": 7}, "model.context must be at least 8, the tokens of a row of letters, got 7"),
        (None, {"dropout": 1.0}, r"model\.dropout must be in \[0, 1\), got 1\.0"),
        (None, {"dim": 7}, "heads must divide the 7 features"),
        (
            None,
            {"network": {"_target_": "attelbo.networks.BidirectionalGRU"}},
            "model/network: .* not of Bidirectional",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(data, options, message):
    with pytest.raises(ConfigError, match=message):
        made(data, **options)


def test_a_longer_context_than_a_row():
    model = made(context=20)
    assert model.limit == 20
    assert model.generate(tokens(1, 10), 11, temperature=0).shape == (1, 21)
    assert isinstance(model._mask(tokens(1), torch.zeros(1, T, dtype=torch.int64)), Document)

"""From sequence to sequence: losses by hand, exact means, translations of a trained model, and what is refused."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.optim import Adam

from attelbo.data.batch import BOS, EOS, PAD, Batch
from attelbo.errors import UserError
from attelbo.models import SequenceToSequence
from translators import V_TARGET, sentences, transformer

SOURCE = sentences(5, 2, 3, 4)
TARGET = sentences(3, 6, 1, 2, n_tokens=V_TARGET)
BATCH = Batch(SOURCE, TARGET, torch.arange(4))
ADAM = {"_target_": "torch.optim.Adam", "lr": 1e-2}
CONSTANT = {"_target_": "attelbo.models.schedulers.Constant"}


def model_of(network=None, **options) -> SequenceToSequence:
    return SequenceToSequence(network or transformer(), 11, ADAM, CONSTANT, **options)


@torch.no_grad()
def nats_by_hand(model: SequenceToSequence) -> list[list[float]]:
    """-log p of every token of every target, EOS too, one sentence at a time."""
    found = []
    for source, target in zip(SOURCE, TARGET, strict=True):
        source, target = source[source != PAD], target[target != PAD]
        log_p = model.network(source[None], target[None, :-1])[0].log_softmax(-1)
        found.append([-float(log_p[u, token]) for u, token in enumerate(target[1:])])
    return found


def test_the_loss_is_the_mean_over_tokens():
    model = model_of()
    nats = [value for row in nats_by_hand(model) for value in row]
    assert len(nats) == 4 + 7 + 2 + 3
    assert float(model.losses(BATCH)["loss"].detach()) == pytest.approx(sum(nats) / len(nats))


def test_no_logits_of_padding():
    model, read = model_of(), list[torch.Size]()
    model.network.output.register_forward_hook(lambda module, given, logits: read.append(logits.shape))
    model.losses(BATCH)
    model.evaluation_step(BATCH)
    assert read == [(16, V_TARGET)] * 2  # of 4 x 7 places


def test_label_smoothing_takes_from_the_target_and_gives_to_all():
    epsilon, model = 0.1, model_of(label_smoothing=0.1)
    log_p = model.network(SOURCE, TARGET[:, :-1]).log_softmax(-1)
    wanted = (1 - epsilon) * F.one_hot(TARGET[:, 1:], V_TARGET) + epsilon / V_TARGET
    by_hand = -(wanted * log_p).sum(-1)[TARGET[:, 1:] != PAD].mean()
    torch.testing.assert_close(model.losses(BATCH)["loss"], by_hand)


def test_parts_of_a_batch_count_by_their_tokens():
    model = model_of(label_smoothing=0.1)
    parts = [Batch(SOURCE[rows], TARGET[rows], rows) for rows in torch.arange(4).split(1)]
    counts = torch.stack([model.counted(part) for part in parts])
    assert len(counts.unique()) > 1
    losses = torch.stack([model.losses(part)["loss"] for part in parts])
    torch.testing.assert_close((counts * losses).sum() / counts.sum(), model.losses(BATCH)["loss"])


@pytest.mark.parametrize("sizes", [[4], [1, 1, 1, 1], [3, 1]])
def test_evaluation_is_exact_whatever_the_batches(sizes):
    model = model_of(label_smoothing=0.1)
    nats = [value for row in nats_by_hand(model) for value in row]
    for _ in range(2):  # each pass begins with a clean slate
        for rows in torch.arange(4).split(sizes):
            source, target = (part[rows, : int((part[rows] != PAD).sum(1).max())] for part in (SOURCE, TARGET))
            model.evaluation_step(Batch(source, target, rows))
        results = model.evaluation_results()
    assert float(results["loss"]) == pytest.approx(sum(nats) / len(nats), rel=1e-6)
    assert float(results["perplexity"]) == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-6)
    assert set(results) == {"loss", "perplexity", "accuracy", "exact"}


@pytest.fixture(scope="module")
def trained() -> SequenceToSequence:
    model = model_of()
    optimizer = Adam(model.parameters(), 1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        model.losses(BATCH)["loss"].backward()
        optimizer.step()
    return model.eval()


def test_a_trained_model_translates(trained):
    wanted = [[token for token in row if token > EOS] for row in TARGET.tolist()]
    assert trained.translate(SOURCE) == wanted
    assert trained.translate(SOURCE, beam=3, length_penalty=0.6) == wanted
    assert trained.translate(SOURCE, max_length=1) == [row[:1] for row in wanted]


def test_exact_is_what_the_greedy_search_finds(trained):
    other = TARGET.clone()
    other[0, 2] = 3 + (other[0, 2] - 2) % (V_TARGET - 3)
    trained.evaluation_step(Batch(SOURCE, other, torch.arange(4)))
    found = trained.translate(SOURCE)
    exact = sum(
        row == [token for token in wanted if token > EOS] for row, wanted in zip(found, other.tolist(), strict=True)
    )
    assert float(trained.evaluation_results()["exact"]) == exact / 4 == 0.75


def test_a_batch_is_translated_as_its_sentences_one_by_one(trained):
    source = sentences(5, 1, 4, 2, 6, seed=3)
    together = trained.translate(source, beam=2)
    assert together == [trained.translate(row[row != PAD][None], beam=2)[0] for row in source]


def test_an_empty_sentence_as_corpora_have_some_is_one_like_others(trained):
    source = torch.tensor([[BOS, 5, EOS], [BOS, EOS, PAD]])
    assert trained.translate(source) == [trained.translate(row[row != PAD][None])[0] for row in source]


def test_alignment_of_a_translation(trained):
    weights = trained.alignment(SOURCE, TARGET[:, :-1])
    assert weights.shape == (4, 7, 7)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


def test_what_cannot_be_translated_is_one_line(trained):
    with pytest.raises(UserError, match=r"^there are 12 positions, too few for a sequence of 22 tokens$"):
        trained.translate(sentences(20))
    with pytest.raises(UserError, match=r"^max_length must be at most 11, got 12$"):
        trained.translate(SOURCE, max_length=12)
    with pytest.raises(UserError, match=r"^beam must be at least 1, got 0$"):
        trained.translate(SOURCE, beam=0)
    with pytest.raises(ValueError, match=r"^label_smoothing must be in \[0, 1\), got 1"):
        model_of(label_smoothing=1)

"""Beam search: against enumeration, against the greedy search, and whatever the batch."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from attelbo.networks import Decoding, Tokens, beam_search

PAD, BOS, EOS = 0, 1, 2
SPECIAL = Tokens(PAD, BOS, EOS)
V, LONGEST = 5, 4


class Trees(Decoding):
    """For each sentence a logit for every token behind every beginning: nothing but a table."""

    def __init__(self, sentences: Tensor, spread: float = 2.0) -> None:
        super().__init__(sentences.device)
        self.tables = [
            spread * torch.randn(V, V**LONGEST, generator=torch.Generator().manual_seed(int(seed)))
            for seed in sentences
        ]
        self.rows = list(range(len(sentences)))
        self.read = [0] * len(sentences)
        self.length = 0

    def advance(self, tokens: Tensor) -> Tensor:
        if self.length:
            self.read = [V * before + int(token) for before, token in zip(self.read, tokens, strict=True)]
        self.length += 1
        return torch.stack([self.logits(row, before) for row, before in zip(self.rows, self.read, strict=True)])

    def logits(self, row: int, before: int) -> Tensor:
        return self.tables[row][:, (before + self.length) % V**LONGEST]

    def reorder(self, rows: Tensor) -> None:
        self.rows = [self.rows[row] for row in rows.tolist()]
        self.read = [self.read[row] for row in rows.tolist()]


class LongTrees(Trees):
    """Whose targets seldom end before they must: nothing leaves the batch."""

    def logits(self, row: int, before: int) -> Tensor:
        return super().logits(row, before) - 3 * torch.eye(V)[EOS]


def log_prob(seed: int, target: tuple[int, ...], kind: type[Trees] = Trees) -> float:
    tree = kind(torch.tensor([seed]))
    before, total = BOS, 0.0
    for token in target:
        total += float(tree.advance(torch.tensor([before])).log_softmax(-1)[0, token])
        before = token
    return total


def targets() -> list[tuple[int, ...]]:
    """All that a search may end with."""
    words = range(3, V)
    ended = [(*body, EOS) for n in range(LONGEST) for body in itertools.product(words, repeat=n)]
    return ended + list(itertools.product(words, repeat=LONGEST))


@pytest.mark.parametrize("alpha", [0.0, 0.6, 3.0])
def test_a_beam_that_holds_everything_finds_the_best(alpha: float) -> None:
    seeds = torch.arange(20)
    found = beam_search(Trees(seeds), 20, SPECIAL, max_length=LONGEST, beam=40, length_penalty=alpha)
    lengths = set()
    for seed, tokens, score in zip(seeds.tolist(), found.tokens.tolist(), found.score.tolist(), strict=True):
        scores = {target: log_prob(seed, target) / ((5 + len(target)) / 6) ** alpha for target in targets()}
        best = max(scores, key=scores.__getitem__)
        assert tuple(token for token in tokens if token != PAD) == best
        assert score == pytest.approx(scores[best], abs=1e-5)
        lengths.add(len(best))
    assert len(lengths) > 1


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_beam_of_one_is_the_greedy_search(alpha: float) -> None:
    seeds = torch.arange(30)
    found = beam_search(Trees(seeds), 30, SPECIAL, max_length=LONGEST, beam=1, length_penalty=alpha)
    for seed, tokens in zip(seeds.tolist(), found.tokens.tolist(), strict=True):
        tree, before, greedy = Trees(torch.tensor([seed])), BOS, []
        while before != EOS and len(greedy) < LONGEST:
            logits = tree.advance(torch.tensor([before]))[0]
            before = int(logits[EOS:].argmax()) + EOS
            greedy.append(before)
        assert [token for token in tokens if token != PAD] == greedy


@pytest.mark.parametrize("beam", [1, 2, 3])
@pytest.mark.parametrize("kind", [Trees, LongTrees])
def test_the_score_is_that_of_the_target_that_is_found(kind: type[Trees], beam: int) -> None:
    found = beam_search(kind(torch.arange(20)), 20, SPECIAL, max_length=LONGEST, beam=beam, length_penalty=0.6)
    for seed, tokens, score in zip(range(20), found.tokens.tolist(), found.score.tolist(), strict=True):
        target = tuple(token for token in tokens if token != PAD)
        assert score == pytest.approx(log_prob(seed, target, kind) / ((5 + len(target)) / 6) ** 0.6, abs=1e-5)


def test_a_wider_beam_finds_nothing_worse_here_and_something_better() -> None:
    scores = [
        beam_search(Trees(torch.arange(40)), 40, SPECIAL, max_length=LONGEST, beam=beam).score for beam in (1, 2, 30)
    ]
    assert (scores[2] >= scores[1] - 1e-6).all()
    assert scores[0].mean() < scores[1].mean() < scores[2].mean()


@pytest.mark.parametrize("beam", [1, 3])
def test_a_batch_is_its_sentences_one_by_one(beam: int) -> None:
    together = beam_search(Trees(torch.arange(8)), 8, SPECIAL, max_length=LONGEST, beam=beam)
    for seed in range(8):
        alone = beam_search(Trees(torch.tensor([seed])), 1, SPECIAL, max_length=LONGEST, beam=beam)
        n = alone.tokens.shape[1]
        assert torch.equal(together.tokens[seed, :n], alone.tokens[0])
        assert (together.tokens[seed, n:] == PAD).all()
        torch.testing.assert_close(together.score[seed], alone.score[0])


def test_equally_good_targets_are_told_apart_alike_whatever_the_batch() -> None:
    class Equal(Trees):
        """Both words are equally likely each time, and the first three tokens are words."""

        def logits(self, row: int, before: int) -> Tensor:
            end = float(self.tables[row][EOS, self.length]) if self.length > 2 else -30.0
            return torch.tensor([0.0, 0.0, end, 0.0, 0.0])

    together = beam_search(Equal(torch.arange(60)), 60, SPECIAL, max_length=12, beam=5)
    for seed in range(60):
        alone = beam_search(Equal(torch.tensor([seed])), 1, SPECIAL, max_length=12, beam=5).tokens[0]
        assert together.tokens[seed, : len(alone)].tolist() == alone.tolist()


@pytest.mark.parametrize("beam", [1, 3])
def test_what_is_done_is_not_computed_further(beam: int) -> None:
    class Counts(Trees):
        def advance(self, tokens: Tensor) -> Tensor:
            sizes.append(len(tokens))
            return super().advance(tokens)

    sizes: list[int] = []
    beam_search(Counts(torch.arange(40)), 40, SPECIAL, max_length=LONGEST, beam=beam)
    assert sizes[0] == 40
    assert 0 < sizes[-1] <= 20 * beam


def test_stops_when_all_are_done() -> None:
    class Ends(Trees):
        def logits(self, row: int, before: int) -> Tensor:
            return torch.full((V,), -10.0).index_fill(0, torch.tensor([EOS]), 10.0)

    tree = Ends(torch.arange(3))
    assert beam_search(tree, 3, SPECIAL, max_length=LONGEST).tokens.tolist() == [[EOS]] * 3
    assert tree.length == 1


def test_a_tie_does_not_stop_a_target_that_has_not_ended() -> None:
    class Tied(Trees):
        """Behind BOS all but certainly a word, and behind it EOS or another word, as likely as each other."""

        def logits(self, row: int, before: int) -> Tensor:
            likely = [3] if self.length == 1 else [EOS, 3] if self.length == 2 else [EOS]
            return torch.full((V,), -100.0).index_fill(0, torch.tensor(likely), 0.0)

    found = beam_search(Tied(torch.arange(1)), 1, SPECIAL, max_length=LONGEST, beam=2)
    assert EOS in found.tokens[0]


def test_a_longer_target_is_waited_for_where_long_ones_are_favoured() -> None:
    class Late(Trees):
        """Behind BOS EOS is a little likelier than a word, behind which only words are likely."""

        def logits(self, row: int, before: int) -> Tensor:
            likely = {EOS: 0.1, 3: 0.0} if self.length == 1 else {EOS: 0.0} if self.length == LONGEST else {3: 0.0}
            return torch.full((V,), -100.0).index_put((torch.tensor([*likely]),), torch.tensor([*likely.values()]))

    for alpha, expected in ((0.0, [EOS]), (3.0, [3, 3, 3, EOS])):
        found = beam_search(Late(torch.arange(1)), 1, SPECIAL, max_length=LONGEST, beam=2, length_penalty=alpha)
        assert found.tokens[0].tolist() == expected


def test_numbers_out_of_range_are_refused() -> None:
    tree = Trees(torch.arange(1))
    with pytest.raises(ValueError, match="beam must be at least 1, got 0"):
        beam_search(tree, 1, SPECIAL, max_length=3, beam=0)
    with pytest.raises(ValueError, match="max_length must be at least 1, got 0"):
        beam_search(tree, 1, SPECIAL, max_length=0)
    for penalty in (-1, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"length_penalty must be finite and not negative, got {penalty}"):
            beam_search(tree, 1, SPECIAL, max_length=3, length_penalty=penalty)

"""Search for a likely target: greedy, or by a beam of the best prefixes.

    score(y) = log p(y | x) / ((5 + U) / 6)^alpha,   U tokens in y, EOS among them

Source: Wu et al. 2016, "Google's Neural Machine Translation System", eq. 14, without its coverage penalty.

Shapes: B sentences, K hypotheses of each (the beam), U tokens of the target, V vocabulary.
Units: nats.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from attelbo.checks import check_at_least, check_not_negative
from attelbo.networks.encoder_decoder import Decoding


class Tokens(NamedTuple):
    """The special tokens that a search must know."""

    pad: int
    bos: int
    eos: int


class Found(NamedTuple):
    """The best target found for each of B sentences."""

    tokens: Tensor
    """(B, U), PAD after EOS; without an EOS where the search stopped at its maximum length."""
    score: Tensor
    """(B,), see above."""


@torch.no_grad()
def beam_search(
    decoding: Decoding, n: int, special: Tokens, *, max_length: int, beam: int = 1, length_penalty: float = 0.0
) -> Found:
    """Keep the ``beam`` best prefixes of each sentence, one token longer each time, until the best one has ended and no
    other can become better.

    A hypothesis that has ended keeps its place in the beam as long as its length-normalized score is among the best. A
    beam of one is the greedy search. Neither PAD nor BOS is ever chosen.

    Args:
        decoding: of B sentences, at their beginning; used up by the search.
        n: B.
        special: PAD, BOS, EOS.
        max_length: the most tokens, including EOS; hypotheses that have not ended then are taken as they are.
        beam: K.
        length_penalty: alpha; 0: plain likelihood, which favours short targets.

    Raises:
        ValueError: a number is out of range.
    """
    check_at_least(1, beam=beam, max_length=max_length)
    check_not_negative(length_penalty=length_penalty)
    device = decoding.device
    found = Found(torch.full((n, max_length), special.pad, device=device), torch.zeros(n, device=device))
    sentences = torch.arange(n, device=device)  # that are not done, and some that are
    tokens = torch.empty(n, beam, 0, dtype=torch.long, device=device)
    log_p = torch.full((n, beam), -torch.inf, device=device)
    log_p[:, 0] = 0  # at first all hypotheses are the same: only one counts
    lengths = torch.zeros(n, beam, dtype=torch.long, device=device)
    ended = torch.zeros(n, beam, dtype=torch.bool, device=device)
    goes_on = torch.ones(n, dtype=torch.bool, device=device)
    latest = torch.full((n,), special.bos, device=device)
    for length in range(1, max_length + 1):
        n = len(sentences)
        of_next = _log_probabilities(decoding.advance(latest), special).unflatten(0, (n, -1))  # (B, 1 or K, V)
        n_tokens = of_next.shape[-1]
        idle = torch.full((n_tokens,), -torch.inf, device=device)
        idle[special.pad] = 0
        candidates = log_p.unsqueeze(-1) + torch.where(ended.unsqueeze(-1), idle, of_next)  # (B, K, V)
        lengths = torch.where(ended, lengths, length)
        scores, place = (candidates / _penalty(lengths, length_penalty).unsqueeze(-1)).flatten(1).topk(beam)
        parent, latest = place // n_tokens, place % n_tokens  # (B, K)
        log_p = candidates.flatten(1).gather(1, place)
        lengths, ended = lengths.gather(1, parent), ended.gather(1, parent) | (latest == special.eos)
        before = tokens.gather(1, parent.unsqueeze(-1).expand(-1, -1, length - 1))
        tokens = torch.cat([before, latest.unsqueeze(-1)], -1)
        # Finished sentences are not overwritten: among ties the order may change.
        going = goes_on.nonzero().squeeze(1)
        found.tokens[sentences[going], :length], found.score[sentences[going]] = tokens[going, 0], scores[going, 0]
        at_best = log_p / _penalty(torch.tensor(max_length), length_penalty)
        # At a tie the best of the beam may be one that has not ended.
        goes_on = scores.where(ended, -torch.inf).amax(1) <= at_best.where(~ended, -torch.inf).amax(1)
        n_left = int(goes_on.sum())
        if n_left == 0:
            break
        rows = torch.arange(n, device=device).unsqueeze(-1)
        rows = rows.expand(n, beam) if length == 1 else beam * rows + parent  # of the decoding
        if 2 * n_left <= n:  # earlier, moving the caches would take longer than it saves
            kept = (sentences, tokens, log_p, lengths, ended, latest, rows, goes_on)
            sentences, tokens, log_p, lengths, ended, latest, rows, goes_on = (part[goes_on] for part in kept)
        if length == 1 or len(sentences) < n:
            decoding.reorder(rows.flatten())
        elif beam > 1:
            decoding.exchange(rows.flatten())
        latest = latest.flatten()
    return Found(found.tokens[:, : tokens.shape[-1]], found.score)


def _log_probabilities(logits: Tensor, special: Tokens) -> Tensor:
    """log p of the next token (..., V), -inf for PAD and BOS."""
    log_p = logits.float().log_softmax(-1)
    log_p[..., [special.pad, special.bos]] = -torch.inf
    return log_p


def _penalty(lengths: Tensor, alpha: float) -> Tensor:
    """The divisor of the log-probability of a hypothesis of this length."""
    return ((5 + lengths) / 6) ** alpha

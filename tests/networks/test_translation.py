"""Networks from sequence to sequence: padding, causality, decoding token by token, beams, alignment."""

import pytest
import torch
import torch.nn.functional as F

from attelbo.data.batch import PAD
from translators import SCORES, V_TARGET, recurrent, sentences, step_by_step, transformer

NETWORKS = {
    "transformer": transformer,
    "pre-norm": lambda: transformer(residual="pre_norm", activation="swiglu", norm="rms"),
    "deepnorm": lambda: transformer(residual="deepnorm"),
    **{
        name: lambda name=name: transformer(position=name) for name in ("Alibi", "RelativeBias", "Rotary", "Sinusoidal")
    },
    "LSTM": lambda: recurrent(cell="lstm", layers=2, directions="backward"),
    "LSTM, both": lambda: recurrent("additive", cell="lstm", layers=2, directions="both"),
    "GRU": lambda: recurrent(feeds_last=True),
    **{f"previous, {score}": lambda score=score: recurrent(score, directions="both") for score in SCORES},
    **{f"current, {score}": lambda score=score: recurrent(score, query="current", readout=5) for score in SCORES},
}


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]()


SOURCE = sentences(5, 2, 3)
TARGET = sentences(3, 6, 1, n_tokens=V_TARGET)[:, :-1]


def test_token_by_token_equals_all_at_once(network):
    torch.testing.assert_close(step_by_step(network, SOURCE, TARGET), network(SOURCE, TARGET))


def test_padding_changes_nothing(network):
    there = TARGET != PAD
    padded = network(F.pad(SOURCE, (0, 3), value=PAD), F.pad(TARGET, (0, 2), value=PAD))
    torch.testing.assert_close(padded[:, :-2][there], network(SOURCE, TARGET)[there])
    for i, (length, longest) in enumerate(zip((SOURCE != PAD).sum(1), there.sum(1), strict=True)):
        alone = network(SOURCE[i : i + 1, :length], TARGET[i : i + 1, :longest])
        torch.testing.assert_close(alone[0], padded[i, :longest])


def test_what_stands_for_padding_does_not_matter(network):
    before = network(SOURCE, TARGET)
    with torch.no_grad():
        for name, vectors in network.named_parameters():
            if name in ("source.weight", "target.weight", "source.vectors.weight", "target.vectors.weight"):
                vectors[PAD] = 1e9
    there = TARGET != PAD
    torch.testing.assert_close(network(SOURCE, TARGET)[there], before[there])


def test_no_prediction_sees_what_it_predicts(network):
    logits = network(SOURCE, TARGET)
    for u in range(1, TARGET.shape[1]):
        other = TARGET.clone()
        other[:, u:] = (other[:, u:] + 1) % V_TARGET
        torch.testing.assert_close(network(SOURCE, other)[:, :u], logits[:, :u])
        assert not torch.equal(network(SOURCE, other)[:, u:], logits[:, u:])


def test_every_source_token_is_heard(network):
    logits = network(SOURCE, TARGET)
    for s in range(1, 4):
        other = SOURCE.clone()
        other[:, s] = (other[:, s] + 1) % 9
        assert not torch.allclose(network(other, TARGET)[0], logits[0])


def test_rows_can_be_taken_in_another_order(network):
    decoding = network.begin(SOURCE, 4)
    decoding.advance(TARGET[:, 0])
    rows = torch.tensor([2, 0, 0, 1])
    decoding.reorder(rows)
    decoding.advance(TARGET[rows, 1])
    decoding.reorder(torch.tensor([3, 2, 1, 0]))
    rows = rows.flip(0)
    torch.testing.assert_close(decoding.advance(TARGET[rows, 2]), network(SOURCE, TARGET)[rows, 2])


def test_alignment_is_a_distribution_over_the_source(network):
    if not network.aligns:
        with pytest.raises(NotImplementedError, match="has no attention to align by"):
            network.alignment(SOURCE, TARGET)
        return
    weights = network.alignment(SOURCE, TARGET)
    assert weights.shape == (3, TARGET.shape[1], SOURCE.shape[1])
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, TARGET.shape[1], dtype=torch.float64))
    assert (weights[(SOURCE == PAD).unsqueeze(1).expand_as(weights)] == 0).all()
    assert not any(module._forward_pre_hooks for module in network.modules())  # nothing is left behind


def test_a_transformer_is_aligned_by_its_last_layer():
    network = transformer()
    cross, seen = network.decoder.blocks[-1].cross, []
    cross.register_forward_hook(lambda module, inputs, output: seen.append((inputs, output)))
    network(SOURCE, TARGET)
    (query, memory), output = seen[0]
    q, k, v = cross.project(query, memory)
    scores = (q @ k.mT / 2).masked_fill((SOURCE == PAD)[:, None, None], -torch.inf)  # D = 4
    by_hand = scores.softmax(-1)
    torch.testing.assert_close(cross.output((by_hand @ v).transpose(1, 2).flatten(2)), output)
    torch.testing.assert_close(network.alignment(SOURCE, TARGET), by_hand.mean(1))


def test_every_parameter_has_a_gradient(network):
    network.train()
    network(SOURCE, TARGET).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_too_long_a_sentence_is_one_line():
    network = transformer(max_length=6)
    with pytest.raises(ValueError, match="there are 6 positions, too few for a sequence of 7 tokens"):
        network.begin(SOURCE, 3)

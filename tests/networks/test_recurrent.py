"""Recurrent encoders against packed sequences of torch's own; decoders that are given their own predictions."""

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from attelbo.data.batch import PAD
from attelbo.networks import RecurrentEncoder, RecurrentEncoderDecoder
from attelbo.networks.recurrent import Units
from torchs_units import torchs
from translators import V_TARGET, recurrent, sentences

LENGTHS = torch.tensor([4, 6, 1])
VALID = torch.arange(6) < LENGTHS.unsqueeze(1)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_reads_as_torch_does_packed(cell, direction):
    torch.manual_seed(0)
    encoder = RecurrentEncoder(cell, 3, 5, 2, direction, 0.0).double()
    x = torch.randn(3, 6, 3, dtype=torch.float64)
    memory, state = encoder(x, VALID)
    if direction == "backward":
        x = torch.stack([torch.cat([row[:n].flip(0), row[n:]]) for row, n in zip(x, LENGTHS, strict=True)])
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    expected, last = torchs(encoder.readers[0])(packed)
    expected, _ = pad_packed_sequence(expected, batch_first=True)
    for row, wanted, n in zip(memory, expected, LENGTHS, strict=True):
        torch.testing.assert_close(row[:n], wanted[:n].flip(0) if direction == "backward" else wanted[:n])
        assert (row[n:] == 0).all()
    torch.testing.assert_close(state, last if cell == "lstm" else (last,))


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_dropout_is_between_layers(cell):
    torch.manual_seed(0)
    units = Units(cell, 3, 5, 3, 0.5)
    units.dropout.p = 1.0  # all of it: torch lays out another draw
    x, state = torch.randn(2, 4, 3), tuple(torch.randn(3, 2, 5) for _ in range(2 if cell == "lstm" else 1))
    given = state if cell == "lstm" else state[0]
    for dropout in (1.0, 0.0):
        found, last = units.train(dropout > 0)(x, state)
        expected, theirs = torchs(units, dropout)(x, given)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(last, theirs if cell == "lstm" else (theirs,))


def test_both_directions_are_side_by_side():
    torch.manual_seed(0)
    encoder = RecurrentEncoder("lstm", 3, 5, 2, "both", 0.0).double()
    x = torch.randn(3, 6, 3, dtype=torch.float64)
    memory, state = encoder(x, VALID)
    for part, reader, name in zip(memory.split(5, -1), encoder.readers, ("forward", "backward"), strict=True):
        alone = RecurrentEncoder("lstm", 3, 5, 2, name, 0.0).double()
        alone.readers[0] = reader
        torch.testing.assert_close(part, alone(x, VALID)[0])
    assert encoder.out_features == memory.shape[-1] == 10
    assert [part.shape for part in state] == [(2, 3, 5)] * 2


SOURCE = sentences(5, 2, 3)
TARGET = sentences(3, 6, 1, n_tokens=V_TARGET)[:, :-1]


@pytest.mark.parametrize("query", ["previous", "current"])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_step_is_given_the_true_token_or_the_likeliest(query, share):
    network = recurrent("dot", query=query, teacher_forcing=share)
    torch.manual_seed(1)
    given = network.train()(SOURCE, TARGET)
    torch.manual_seed(1)
    true = (torch.rand(TARGET.shape) < share) | (TARGET == PAD)  # of padding nothing is asked
    decoding, token = network.eval().begin(SOURCE, 99), TARGET[:, 0]
    for u in range(TARGET.shape[1]):
        logits = decoding.advance(token)
        torch.testing.assert_close(given[:, u], logits)
        if u + 1 < TARGET.shape[1]:
            token = torch.where(true[:, u + 1], TARGET[:, u + 1], logits.argmax(-1))
    if share < 1:
        assert not torch.allclose(given, network(SOURCE, TARGET))  # in evaluation all are true


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "rnn"}, "cell must be gru or lstm, got 'rnn'"),
        ({"directions": "left"}, "directions must be forward or backward or both, got 'left'"),
        ({"query": "next"}, "query must be previous or current, got 'next'"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"readout": 0}, "readout must be at least 1, got 0"),
        ({"teacher_forcing": 1.5}, r"teacher_forcing must be in \[0, 1\], got 1\.5"),
    ],
)
def test_what_there_is_not_is_one_line(options, message):
    with pytest.raises(ValueError, match=message):
        RecurrentEncoderDecoder(5, 5, 0, **options)

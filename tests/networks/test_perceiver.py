"""Reading a set by learned queries, asking latents for each pixel."""

import math

import pytest
import torch
from torch import Tensor, nn

from attelbo.attention import Padding
from attelbo.data.batch import PAD
from attelbo.networks import PerceiverDecoder, PerceiverEncoder, PerceiverTextEncoder, SetReader
from attelbo.networks.perceiver import fourier_features


def reader() -> SetReader:
    torch.manual_seed(0)
    return SetReader(5, dim=8, n_latents=3, heads=2, layers=1, rounds=2).double()


def test_the_order_of_the_elements_does_not_matter() -> None:
    x = torch.randn(4, 7, 5, dtype=torch.float64)
    read = reader()
    torch.testing.assert_close(read(x[:, torch.randperm(7)]), read(x))


def test_padding_changes_nothing_whatever_stands_there() -> None:
    x = torch.randn(3, 7, 5, dtype=torch.float64)
    lengths = torch.tensor([7, 4, 1])
    valid = torch.arange(7) < lengths.unsqueeze(1)
    poisoned = x.masked_fill(~valid.unsqueeze(-1), math.nan)
    read = reader()
    h = read(poisoned, Padding(valid))
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(h[row], read(x[row : row + 1, :length])[0])


def test_an_encoder_is_a_function_of_pixels_and_their_places_and_not_of_their_order() -> None:
    torch.manual_seed(0)
    encoder = PerceiverEncoder((2, 4, 3), dim=8, n_latents=3, heads=2, layers=1).double()
    x = torch.rand(2, 2, 4, 3, dtype=torch.float64)
    elements = encoder.elements(x)
    h = encoder.reader(elements[:, torch.randperm(12)])
    torch.testing.assert_close(h, encoder(x))
    shuffled = x.flatten(2)[..., torch.randperm(12)].unflatten(2, (4, 3))
    assert (encoder(shuffled) - h).abs().max() > 1e-3


def test_elements_are_values_beside_places() -> None:
    encoder = PerceiverEncoder((2, 2, 3), bands=1)
    x = torch.arange(12.0).reshape(1, 2, 2, 3)
    elements = encoder.elements(x)[0]
    assert elements[:, :2].tolist() == [[0, 6], [1, 7], [2, 8], [3, 9], [4, 10], [5, 11]]
    torch.testing.assert_close(elements[:, 2:], fourier_features((2, 3), 1))


def test_places_are_told_in_sines_and_cosines() -> None:
    places = fourier_features((8, 6), bands=3)
    assert places.shape == (48, 2 * 7)
    row, column = 5, 2
    frequencies = (1, 2.5, 4)  # up to half of the eight rows
    expected = []
    for at, n in ((row, 8), (column, 6)):
        where = -1 + (2 * at + 1) / n
        expected += [math.sin(math.pi * f * where) for f in frequencies]
        expected += [math.cos(math.pi * f * where) for f in frequencies]
        expected.append(where)
    torch.testing.assert_close(places[row * 6 + column], torch.tensor(expected))
    assert len(places.unique(dim=0)) == 48


def text_encoder() -> PerceiverTextEncoder:
    torch.manual_seed(0)
    encoder = PerceiverTextEncoder(nn.Embedding(9, 6), PAD, 7, dim=8, n_latents=3, heads=2, rounds=2).double()
    nn.init.normal_(encoder.position.table)  # places begin small
    return encoder


def texts(*lengths: int) -> Tensor:
    drawn = torch.randint(1, 9, (len(lengths), 7), generator=torch.Generator().manual_seed(1))
    return drawn.masked_fill(torch.arange(7) >= torch.tensor(lengths).unsqueeze(1), PAD)


@torch.no_grad()
def test_an_element_is_a_token_and_its_place_and_padding_is_none() -> None:
    encoder, x = text_encoder(), texts(7, 4, 2)
    expected = [
        encoder.reader(encoder.embedding.weight[row].unsqueeze(0) + encoder.position.table[: len(row)])[0]
        for row in (x[0], x[1, :4], x[2, :2])
    ]
    encoder.embedding.weight[PAD] = math.nan
    h = encoder(x)
    assert h.shape == (3, encoder.out_features)
    torch.testing.assert_close(h, torch.stack(expected))
    torch.testing.assert_close(encoder(x[1:, :4]), h[1:])


@torch.no_grad()
def test_the_order_of_tokens_matters_by_their_places_alone() -> None:
    encoder, x = text_encoder(), texts(7, 7)
    turned = x.flip(1)
    assert (encoder(turned) - encoder(x)).abs().min() > 1e-4
    encoder.position.table.zero_()
    torch.testing.assert_close(encoder(turned), encoder(x))


def test_a_text_that_has_no_place_for_all_its_tokens_is_an_error() -> None:
    with pytest.raises(ValueError, match="7"):
        text_encoder()(torch.ones(1, 8, dtype=torch.int64))


def test_a_decoder_says_something_else_at_each_place_and_for_each_z() -> None:
    torch.manual_seed(0)
    decoder = PerceiverDecoder((5,), (1, 6, 5), dim=8, n_latents=3, heads=2, layers=1)
    eta = decoder(torch.randn(2, 5))
    assert len(eta[0].flatten().unique()) == 30
    assert (eta[0] - eta[1]).abs().min() > 0


def test_what_is_read_depends_on_the_image_from_the_beginning() -> None:
    """Nearly the mean of all elements would be nearly the same of all images, and z would collapse."""
    torch.manual_seed(0)
    h = PerceiverEncoder((1, 8, 8), dim=32, n_latents=8)((torch.rand(200, 1, 8, 8) > 0.5).float())
    assert h.std(0).mean() > 0.1 * h.std()


def test_pixels_move_with_z_in_many_directions_from_the_beginning() -> None:
    torch.manual_seed(0)
    eta = PerceiverDecoder((16,), (1, 8, 8), dim=32, n_latents=8)(torch.randn(300, 16)).flatten(1)
    variances = torch.linalg.svdvals(eta - eta.mean(0)).square()
    assert variances.sum() ** 2 / variances.square().sum() > 5  # of 16; nearly means of latents: about 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"bands": 0}, "bands must be at least 1, got 0"),
        ({"n_latents": 0}, "n_latents"),
        ({"dim": 6}, "heads"),
    ],
)
def test_what_is_out_of_range_is_told(options: dict[str, int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        PerceiverEncoder((1, 8, 8), **options)


def test_a_decoder_has_latents() -> None:
    with pytest.raises(ValueError, match="n_latents"):
        PerceiverDecoder((2,), (1, 8, 8), n_latents=0)

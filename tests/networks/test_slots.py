"""Slots are a set: their order means nothing; pixels are shared out among them."""

import pytest
import torch

from attelbo.networks import SlotDecoder, SlotEncoder
from attelbo.networks.slots import Places


def encoder(**changes) -> SlotEncoder:
    torch.manual_seed(0)
    return SlotEncoder((1, 8, 8), **{"channels": [4, 4], "dim": 6, "n_slots": 3, **changes}).double()


def decoder(channels: int = 1) -> SlotDecoder:
    torch.manual_seed(0)
    return SlotDecoder((5, 3, 1), (channels, 8, 8), channels=[4, 4]).double()


def test_slots_that_begin_in_another_order_end_in_it() -> None:
    part, x, order = encoder(), torch.rand(2, 1, 8, 8).double(), torch.tensor([2, 0, 1])
    slots = part(x)
    with torch.no_grad():
        part.slots.beginnings.copy_(part.slots.beginnings[order])
    torch.testing.assert_close(part(x), slots[:, :, order])
    assert not torch.allclose(slots[:, :, order], slots)


def test_slots_know_where_a_pixel_is() -> None:
    part = encoder().eval()
    x = torch.zeros(1, 1, 8, 8).double()
    x[..., 2:4, 2:4] = 1
    assert (part(x) - part(x.roll(3, -1))).abs().max() > 1e-4
    with torch.no_grad():
        part.places.linear.weight.zero_()
    inside = torch.zeros(1, 1, 24, 24).double()  # far from the edges, at which convolutions see zeros
    large = SlotEncoder((1, 24, 24), channels=[4], halvings=0, dim=6, n_slots=3).double().eval()
    with torch.no_grad():
        large.places.linear.weight.zero_()
    inside[..., 8:10, 8:10] = 1
    torch.testing.assert_close(large(inside), large(inside.roll(4, -1)))


def test_places_are_distances_to_the_edges() -> None:
    places = Places(2, (3, 2))
    assert places.distances.tolist() == [
        *([0, 0, 1, 1], [0, 1, 1, 0]),
        *([0.5, 0, 0.5, 1], [0.5, 1, 0.5, 0]),
        *([1, 0, 0, 1], [1, 1, 0, 0]),
    ]


def test_slots_painted_in_another_order_make_the_same_image() -> None:
    part, z, order = decoder(), torch.randn(2, 5, 3, 1).double(), torch.tensor([2, 0, 1])
    painted, shares = part.layers(z)
    torch.testing.assert_close(shares.sum(1), torch.ones(2, 8, 8).double())
    others = part.layers(z[:, :, order])
    torch.testing.assert_close(others, (painted[:, order], shares[:, order]))
    torch.testing.assert_close(part(z[:, :, order]), part(z))
    torch.testing.assert_close(part(z), sum(painted[:, k] * shares[:, k].unsqueeze(1) for k in range(3)))


def test_a_slot_is_painted_by_itself() -> None:
    part, z = decoder(channels=2), torch.randn(1, 5, 3, 1).double()
    other = z.clone()
    other[:, :, 1] += 1
    (painted, _), (changed, _) = part.layers(z), part.layers(other)
    assert torch.equal(painted[:, [0, 2]], changed[:, [0, 2]])
    assert not torch.allclose(painted[:, 1], changed[:, 1])


def test_places_share_no_features_with_a_small_z() -> None:
    """Two numbers of z and two of a place vary independently in what is painted from."""
    torch.manual_seed(0)
    part, seen = SlotDecoder((2, 3, 1), (1, 12, 12), channels=[6, 4]).double(), []
    part.painter.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    part(torch.randn(5, 2, 3, 1).double())
    rows = seen[0].movedim(1, -1).flatten(0, -2)
    assert torch.linalg.matrix_rank(rows - rows.mean(0)) == 2 + 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: encoder(halvings=3), r"^halvings must be in 0\.\.2, the number of convolutions, got 3"),
        (lambda: encoder(halvings=-1), r"^halvings must be in 0\.\.2"),
        (lambda: encoder(n_slots=0), r"^n_slots must be at least 1, got 0"),
        (lambda: encoder(channels=[]), r"^channels must name at least one level"),
        (lambda: SlotDecoder((5, 3, 1), (8,)), r"^out_shape must be \(channels, height, width\)"),
        (lambda: SlotDecoder((5, 0, 1), (1, 8, 8)), r"^in_shape must be positive numbers"),
    ],
)
def test_what_cannot_be(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()

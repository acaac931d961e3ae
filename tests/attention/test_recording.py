"""Recorded attention: the model computes what it computed, and the maps are those it computed with."""

import pytest
import torch
from torch import Tensor, nn

from attelbo.attention import (
    Causal,
    Document,
    FeedForward,
    KeyValueCache,
    MultiHeadAttention,
    Padding,
    SelfAttention2d,
    TransformerBlock,
    attention_layers,
    record_attention,
)

VALID = torch.arange(5) < torch.tensor([5, 3, 1])[:, None]


class Model(nn.Module):
    """An encoder's and a decoder's block, with dropout, and attention in a feature map."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = TransformerBlock(MultiHeadAttention(8, 2, dropout=0.3), FeedForward(8, 8), dropout=0.3)
        self.decoder = TransformerBlock(
            MultiHeadAttention(8, 4, kv_heads=2, mask=Causal()),
            FeedForward(8, 8),
            cross=MultiHeadAttention(8, 1, memory_dim=8),
        )
        self.pixels = SelfAttention2d(8, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        memory = self.encoder(x, mask=Padding(VALID))
        decoded = self.decoder(y, memory, memory_mask=Padding(VALID))
        return self.pixels(decoded.transpose(1, 2).unflatten(2, (2, 3)))


def model() -> Model:
    torch.manual_seed(0)
    built = Model().double()
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.5)
    return built


def inputs() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(3, 5, 8, dtype=torch.float64), torch.randn(3, 6, 8, dtype=torch.float64)


NAMES = ["encoder.attention", "decoder.attention", "decoder.cross", "pixels.attention"]


@pytest.mark.parametrize("training", [True, False])
def test_what_is_computed_is_the_same_to_the_last_bit(training: bool) -> None:
    ours, (x, y) = model().train(training), inputs()
    torch.manual_seed(2)
    expected = ours(x, y)
    expected.sum().backward()
    gradients = [parameter.grad for parameter in ours.parameters()]
    ours.zero_grad()
    torch.manual_seed(2)
    with record_attention(ours) as maps:
        recorded = ours(x, y)
    recorded.sum().backward()
    assert torch.equal(recorded, expected)
    assert all(torch.equal(p.grad, g) for p, g in zip(ours.parameters(), gradients, strict=True))
    assert list(maps) == NAMES
    assert not any(weights.requires_grad for weights in maps.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_maps_times_the_values_are_the_output(name: str) -> None:
    ours, (x, y) = model().eval(), inputs()
    layer = ours.get_submodule(name)
    assert isinstance(layer, MultiHeadAttention)
    seen: list = []
    hook = layer.register_forward_hook(lambda module, args, output: seen.extend([args, output]))
    with record_attention(ours, [name]) as maps:
        ours(x, y)
    hook.remove()
    (tokens, *memory), output = seen
    _, _, value = layer.project(tokens, *memory)
    value = value.repeat_interleave(layer.heads // value.shape[1], 1)
    torch.testing.assert_close(layer.output((maps[name] @ value).transpose(1, 2).flatten(2)), output)
    torch.testing.assert_close(maps[name].sum(-1), torch.ones_like(maps[name].sum(-1)))


@pytest.mark.parametrize("rows", [slice(1, 3), torch.tensor([2, 0])])
def test_chosen_rows_are_those_of_all(rows) -> None:
    ours, (x, y) = model().eval(), inputs()
    with record_attention(ours) as every, record_attention(ours, rows=rows) as some:
        ours(x, y)
    for name in NAMES:
        torch.testing.assert_close(some[name], every[name][rows])


def test_a_memory_of_one_row_is_that_of_every_row() -> None:
    layer, (x, _) = MultiHeadAttention(8, 2).double(), inputs()
    with record_attention(layer) as every, record_attention(layer, rows=torch.tensor([2])) as some:
        layer(x, x[:1])
    torch.testing.assert_close(some[""], every[""][2:])


class Sources(nn.Module):
    """Of one's own: attends to several memories, however they are given."""

    def forward(self, x: Tensor, memories: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
        return self.weights(x, memories)

    def weights(self, x: Tensor, memories: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
        return torch.stack([(x[:, :1] * each[:, :1]).sum(-1) for each in memories], -1).unsqueeze(1)


@pytest.mark.parametrize("kind", [tuple, list])
@pytest.mark.parametrize("rows", [slice(0, 1), torch.tensor([2, 0])])
def test_rows_of_several_memories(kind, rows) -> None:
    layer, (x, y) = Sources(), inputs()
    with record_attention(layer) as every, record_attention(layer, rows=rows) as some:
        layer(x, kind([x, y, x + 1]))
    torch.testing.assert_close(some[""], every[""][rows])


def test_layers_are_chosen_by_name_and_every_call_is_kept() -> None:
    ours, (x, y) = model().eval(), inputs()
    with record_attention(ours, ["decoder.*"]) as maps:
        ours(x, y)
        ours(x, y + 1)
    assert list(maps) == ["decoder.attention", "decoder.cross"]
    first, last = maps.calls["decoder.cross"]
    assert torch.equal(maps["decoder.cross"], last)
    assert not torch.equal(first, last)
    assert list(attention_layers(ours)) == NAMES


def test_nothing_stays_behind() -> None:
    ours, (x, y) = model().eval(), inputs()
    with pytest.raises(RuntimeError), record_attention(ours) as maps:
        raise RuntimeError
    ours(x, y)
    assert len(maps) == 0
    assert not any(module._forward_hooks for module in ours.modules())


def test_masks_of_rows() -> None:
    ids = torch.tensor([[0, 0, 1], [0, 1, -1]])
    mask = Causal() & Padding(VALID[1:, :3]) | Document(ids)
    rows = torch.tensor([1])
    expected = mask.dense(3, 3, device=None)[rows]
    assert torch.equal(mask.of_rows(rows).dense(3, 3, device=None), expected)


def test_what_cannot_be_recorded() -> None:
    ours, (x, _) = model(), inputs()
    with pytest.raises(ValueError, match=r"called 'heads': there are encoder\.attention, decoder\.attention, "):
        record_attention(ours, ["heads"]).__enter__()
    with pytest.raises(ValueError, match="Linear has none"):
        record_attention(nn.Linear(2, 2)).__enter__()
    layer = MultiHeadAttention(8, 2).double()
    with record_attention(layer), pytest.raises(ValueError, match="whole sequences, not of steps"):
        layer(x, cache=KeyValueCache(5))

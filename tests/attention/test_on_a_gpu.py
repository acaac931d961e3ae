"""Every kernel on a GPU against the reference on a CPU in float64: outputs and gradients, FlexAttention compiled."""

import pytest
import torch
from attention_contract import build_part, names, normal
from torch import Tensor

from attelbo.attention import (
    KERNELS,
    Alibi,
    Block,
    Causal,
    Document,
    KernelName,
    Mask,
    Mechanism,
    MultiHeadAttention,
    NoPosition,
    Padding,
    Position,
    Prefix,
    ScaledDot,
    SlidingWindow,
)

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),  # torch's own, when it first compiles
]

HEADS, TOKENS, FEATURES = 4, 200, 32
IDS = torch.arange(TOKENS).div(70, rounding_mode="floor").repeat(2, 1)
VALID = torch.arange(TOKENS) < torch.tensor([[TOKENS], [61]])


def masks(device: str) -> dict[str, Mask | None]:
    return {
        "none": None,
        "causal": Causal(),
        "window": Causal() & SlidingWindow(40) | Prefix(3),
        "block": Block(64),
        "padding": Padding(VALID.to(device)),
        "causal documents": Causal() & Document(IDS.to(device)),
    }


def outcome(kernel: str, device: str, dtype: torch.dtype, mask: str, position: Position, **options) -> list[Tensor]:
    """Output and gradients, on the CPU in float64."""
    given = [normal(2, HEADS, TOKENS, FEATURES, seed=seed).to(device, dtype).requires_grad_() for seed in range(3)]
    mechanism = Mechanism(ScaledDot(FEATURES), position=position, **options)
    output = KERNELS[kernel](*given, mechanism, mask=masks(device)[mask])
    projection = normal(*output.shape, seed=9).to(device, dtype)
    found = [output, *torch.autograd.grad((output * projection).sum(), given)]
    return [tensor.detach().cpu().double() for tensor in found]


CASES = [
    *((mask, "none", None) for mask in masks("cpu")),
    ("causal", "alibi", None),
    ("padding", "none", 5.0),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kernel", list(KERNELS))
@pytest.mark.parametrize(("mask", "position", "cap"), CASES)
def test_is_the_reference(kernel: KernelName, mask: str, position: str, cap: float | None, dtype: torch.dtype) -> None:
    made = Alibi(HEADS) if position == "alibi" else NoPosition()
    if KERNELS[kernel].refuses(Mechanism(ScaledDot(FEATURES), position=made, soft_cap=cap), dropout=0.0, mask=None):
        pytest.skip("it says that it cannot")
    expected = outcome("eager", "cpu", torch.float64, mask, made, soft_cap=cap)
    found = outcome(kernel, "cuda", dtype, mask, made.to("cuda"), soft_cap=cap)
    tolerance = 2e-3 if dtype is torch.float32 else 6e-2  # FlexAttention rounds float32 to 10 bits in its products
    for own, other in zip(found, expected, strict=True):
        assert (own - other).norm() <= tolerance * other.norm()


@pytest.mark.parametrize("position", names("position"))
def test_a_layer_moves_there_with_all_that_it_has(position: str) -> None:
    made = build_part("position", position, dim=64, heads=4, head_dim=16, max_length=16, size=(4, 4))
    layer = MultiHeadAttention(64, 4, position=made).double()
    x = normal(2, 16, 64)
    expected = layer(x)
    torch.testing.assert_close(layer.to("cuda")(x.to("cuda")).cpu(), expected, rtol=1e-6, atol=1e-8)


def test_dropped_weights_keep_the_mean() -> None:
    torch.manual_seed(0)
    given = [normal(1, 1, 5, 16, seed=seed).to("cuda", torch.float32).expand(20_000, -1, -1, -1) for seed in range(3)]
    mechanism = Mechanism(ScaledDot(16))
    mean = KERNELS["auto"](*given, mechanism, dropout=0.3).mean(0)
    torch.testing.assert_close(mean, KERNELS["eager"](*given, mechanism)[0], atol=0.03, rtol=0)

"""PyTorch's FlexAttention: softmax of dot products with any mask, bias and soft cap, in one compiled kernel.

The mask is rendered by blocks: fully masked ones are skipped, at any distance, which suits packed documents. On a GPU
the kernel is compiled for each mechanism and size, half a minute the first time. On a CPU there is no backward pass
(PyTorch issue 148752), and it runs uncompiled here: O(T S) memory, slower than the others; meant for inspecting what a
GPU has trained.

Source: Dong et al. 2024, "Flex Attention: A Programming Model for Generating Optimized Attention Kernels".

Shapes: B batch, N heads, M heads of keys and values, T queries, S keys, D features of a head, V of a value.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from attelbo.attention.kernels.base import Call, Kernel, Mechanism
from attelbo.attention.masks import Mask
from attelbo.attention.normalizers import Softmax
from attelbo.attention.scores import DotProductScore, is_dot_product

NO_BACKWARD = "PyTorch's FlexAttention has no backward pass on a CPU"


class Flex(Kernel):
    """``flex_attention``, for a GPU; on a CPU for inference only."""

    name = "flex"

    def refuses(self, mechanism: Mechanism, *, dropout: float, mask: Mask | None) -> str | None:
        if not is_dot_product(mechanism.score):
            return f"{type(mechanism.score).__name__} is no dot product"
        if type(mechanism.normalizer) is not Softmax:  # a subclass may do anything
            return f"its normalizer is softmax, not {type(mechanism.normalizer).__name__}"
        if mechanism.position.reads_scores:
            return f"it shows a score by itself only, and {type(mechanism.position).__name__} reads all of a query"
        if mechanism.position.computes_bias:
            return f"it looks a bias up, and that of {type(mechanism.position).__name__} is computed by a network"
        if dropout > 0:
            return "it cannot drop weights"
        if torch.is_grad_enabled() and not torch.cuda.is_available():
            return f"{NO_BACKWARD}, and there is no GPU; under torch.no_grad() it can be built, to infer"
        return None

    def describe(self, mechanism: Mechanism, mask: Mask | None, call: Call) -> str:
        if call.device == "cpu":
            return f"cannot: {NO_BACKWARD}" if call.training else f"uncompiled: makes {call.n_weights:,} weights"
        return "compiled, without blocks that are masked"

    def compute(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mechanism: Mechanism,
        mask: Mask | None,
        offset: int,
        dropout: float,
    ) -> Tensor:
        score, on_cpu = mechanism.score, query.device.type == "cpu"
        assert isinstance(score, DotProductScore)
        if on_cpu and Call.of(query, key, value, dropout=dropout).training:
            raise ValueError(f"kernel=flex cannot train here: {NO_BACKWARD}; kernel=auto can")
        return _flex_attention(on_cpu)(
            score.at_query(query),
            score.at_key(key),
            value,
            score_mod=_score_mod(mechanism, offset),
            block_mask=None if mask is None else block_mask(mask, query.shape[2], key.shape[2], offset, query.device),
            scale=score.scale,
            enable_gqa=key.shape[1] != query.shape[1],
        )


def block_mask(mask: Mask, n_queries: int, n_keys: int, offset: int, device: torch.device) -> Any:
    """The mask by blocks; cached if it is the same for every row of a batch."""
    render = _block_mask if mask.batch_size is None else _block_mask.__wrapped__
    return render(mask, n_queries, n_keys, offset, device)


@lru_cache(maxsize=32)
def _block_mask(mask: Mask, n_queries: int, n_keys: int, offset: int, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    def allows(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return mask.allowed(batch, query + offset, key)

    return create_block_mask(allows, mask.batch_size, None, n_queries, n_keys, device=str(device))


def _score_mod(mechanism: Mechanism, offset: int) -> Callable[..., Tensor] | None:
    position, cap = mechanism.position, mechanism.soft_cap
    if not position.has_bias and cap is None:
        return None

    def changed(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        if position.has_bias:
            score = score + position.bias(head, query + offset, key)
        return score if cap is None else cap * torch.tanh(score / cap)

    return changed


def _flex_attention(on_cpu: bool) -> Callable[..., Tensor]:
    if on_cpu:
        return _uncompiled
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention if torch.compiler.is_compiling() else _compiled()


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def _uncompiled(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """Without PyTorch's warning of being slow, which :meth:`Flex.describe` gives, and without retracing for every
    mask."""
    from torch.nn.attention import flex_attention

    module: Any = flex_attention
    before = module._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG
    module._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = True
    try:
        return module.flex_attention(query, key, value, **options)
    finally:
        module._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = before

"""Kernels: ways to compute attention, which differ in speed, memory and what they can compute."""

from attelbo.attention.kernels.auto import Auto, choose
from attelbo.attention.kernels.base import Call, Kernel, KernelName, Mechanism
from attelbo.attention.kernels.chunked import Chunked
from attelbo.attention.kernels.eager import Eager, attention_weights
from attelbo.attention.kernels.flex import Flex
from attelbo.attention.kernels.sdpa import Sdpa
from attelbo.attention.masks import Mask

KERNELS: dict[KernelName, Kernel] = {kernel.name: kernel for kernel in (Auto(), Eager(), Sdpa(), Chunked(), Flex())}


def explain(name: KernelName, mechanism: Mechanism, mask: Mask | None, call: Call) -> str:
    """Which kernel computes a call and why, and what each of the others would do; a line for each."""
    if mask is not None and mask.allows_all(call.n_queries, call.n_keys, call.offset):
        mask = None
    chosen, why = choose(mechanism, mask, call) if name == "auto" else (KERNELS[name], "as asked for")
    lines = [
        f"{chosen.name}: {why}",
        f"for {call.batch_size} x {call.n_heads} heads, {call.n_queries} queries, {call.n_keys} keys on {call.device}, "
        f"{'with' if call.training else 'without'} gradients, dropout {call.dropout:g}",
    ]
    for other, kernel in KERNELS.items():
        if other != "auto":
            refusal = kernel.refuses(mechanism, dropout=call.dropout, mask=mask)
            does = kernel.describe(mechanism, mask, call) if refusal is None else f"cannot: {refusal}"
            lines.append(f"  {other}: {does}")
    return "\n".join(lines)


__all__ = [
    "KERNELS",
    "Auto",
    "Call",
    "Chunked",
    "Eager",
    "Flex",
    "Kernel",
    "KernelName",
    "Mechanism",
    "Sdpa",
    "attention_weights",
    "explain",
]

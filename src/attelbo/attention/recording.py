"""Attention maps of chosen layers, while the model keeps its fast kernels.

A fused kernel never forms the weights. So a recorded layer computes them a second time in each call, with the reference
kernel and for a few rows; the output of the model is the same to the last bit, and without recording nothing is added.

    with record_attention(model, layers=("encoder.*",), rows=slice(4)) as maps:
        model(x)
    maps["encoder.layers.2.attention"]  # (4, N, T, S)

Shapes: B batch, N heads, T queries, S keys.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from attelbo.attention.masks import Mask
from attelbo.attention.stacked import Handed

Rows = slice | Tensor
"""Of a batch."""


@runtime_checkable
class Attends(Protocol):
    """What a module needs to be recorded: the attention weights (B, N, T, S), given the arguments of its
    ``forward``."""

    def weights(self, *args: Any, **kwargs: Any) -> Tensor: ...


class RecordedMaps(Mapping[str, Tensor]):
    """The weights (B, N, T, S) of each layer in the last of its calls, by the layer's name, in the order of calls."""

    def __init__(self) -> None:
        self.calls: dict[str, list[Tensor]] = {}
        """Those of all calls, as of a recurrent decoder, which asks once for each token."""

    def __getitem__(self, name: str) -> Tensor:
        return self.calls[name][-1]

    def __iter__(self) -> Iterator[str]:
        return iter(self.calls)

    def __len__(self) -> int:
        return len(self.calls)


@contextmanager
def record_attention(
    model: nn.Module, layers: Sequence[str] = ("*",), rows: Rows | None = None
) -> Iterator[RecordedMaps]:
    """Record the attention of a model's layers in all its calls inside the context.

    Args:
        model: whose layers.
        layers: their names, as ``named_modules`` has them, or patterns such as ``encoder.*``.
        rows: of the batch of a layer's input; all if None.

    Raises:
        ValueError: a pattern that fits no layer, inside: a step with a cache, whose keys a second computation would
            not have.
    """
    chosen = attention_layers(model, layers)
    maps = RecordedMaps()
    hooks = [module.register_forward_hook(_hook(maps, name, rows), with_kwargs=True) for name, module in chosen.items()]
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()


def attention_layers(model: nn.Module, patterns: Sequence[str] = ()) -> dict[str, nn.Module]:
    """The layers that can be recorded, by name; with ``patterns`` those whose name fits one of them.

    Raises:
        ValueError: a pattern that fits no layer.
    """
    layers = {name: model.get_submodule(name) for name, module in model.named_modules() if isinstance(module, Attends)}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in layers):
            there = f"there are {', '.join(layers)}" if layers else f"{type(model).__name__} has none"
            raise ValueError(f"no layer with attention is called {pattern!r}: {there}")
    fit = (name for name in layers if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns))
    return {name: layers[name] for name in fit}


def _hook(maps: RecordedMaps, name: str, rows: Rows | None) -> Any:
    @torch.no_grad()
    def record(module: Attends, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if kwargs.get("cache") is not None:
            raise ValueError(f"{name} was called with a cache: attention is recorded of whole sequences, not of steps")
        asked = {key: value for key, value in kwargs.items() if key != "cache"}
        if rows is not None:
            args, asked = _of_rows(args, rows), _of_rows(asked, rows)
        maps.calls.setdefault(name, []).append(module.weights(*args, **asked))

    return record


def _of_rows(value: Any, rows: Rows) -> Any:
    """Arguments of a layer as they are for some rows of the batch."""
    if isinstance(value, Mask):
        return value.of_rows(rows)
    if isinstance(value, Handed):
        return Handed(_of_rows(value.before, rows), _of_rows(value.parts, rows))
    if isinstance(value, Tensor):
        return value if len(value) == 1 else value[rows]
    if isinstance(value, dict):
        return {key: _of_rows(each, rows) for key, each in value.items()}
    if isinstance(value, tuple | list):
        parts = [_of_rows(each, rows) for each in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value

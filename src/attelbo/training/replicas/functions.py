"""torch's functions inside a ``torch.vmap`` over replicas: each with its own noise, and in few kernels.

Code that computes the losses of N replicas at once draws its noise by ``torch.randn``, ``torch.rand_like``, dropout and
the like, as if there were one model. Each replica must draw from its own stream what it would draw alone.
:class:`Streams` keeps the N streams apart; :class:`Replicated` splits each random call into one draw for
each replica, from its stream and of its shape.

Only calls that are known to be random are split. Any other is an error of vmap's, which names it: noise that is shared
would make replicas dependent, and nobody would see it.

Shapes: N replicas, ... any, I inputs and O outputs of a linear layer.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

# What torch.vmap itself is made of; there is no public way to give a tensor of our own a batch dimension inside.
_private: Any = torch
_functorch: Any = _private._C._functorch

_RANDOM = {
    *(torch.rand, torch.randn, torch.randint, torch.randperm),
    *(torch.normal, torch.bernoulli, torch.binomial, torch.multinomial, torch.poisson),
    *(_private._standard_gamma, _private._sample_dirichlet),  # of torch.distributions
    *(torch.Tensor.bernoulli, torch.Tensor.multinomial),
}
"""Functions whose value depends on nothing but their arguments and the generator."""

_RANDOM_LIKE = {torch.rand_like, torch.randn_like, torch.randint_like}
"""Functions that read only the shape, type and device of their first argument."""

_RANDOM_FILL = {
    getattr(torch.Tensor, f"{name}_")
    for name in ("normal", "uniform", "exponential", "bernoulli", "random", "log_normal", "cauchy", "geometric")
}
"""Methods that fill a tensor."""


_WITHOUT_RULE = {
    getattr(torch.Tensor, f"{name}_"): getattr(torch.Tensor, name)
    for name in ("clamp", "clamp_min", "clamp_max", "lerp")
}
"""In-place methods for which vmap would loop over the replicas -> the same out of place."""


class NotStackableError(Exception):
    """Models cannot be computed as one; the message says why."""


class Streams(Protocol):
    """N streams of random numbers, of which the default generator of a device follows one at a time."""

    generators: Sequence[torch.Generator]
    """Those behind the streams, where each has one of its own."""

    def __len__(self) -> int: ...

    def keep(self, replica: int) -> None:
        """Set the stream of a replica to the present state of the default generator."""
        ...

    def copy(self) -> "Streams":
        """A copy that can be drawn from without moving these."""
        ...

    def of(self, replica: int) -> AbstractContextManager[None]:
        """Inside, the default generator draws from the stream of a replica."""
        ...


class HostStreams:
    """States of the CPU's default generator, which are set and saved in turn."""

    def __init__(self, n: int) -> None:
        self.generators: Sequence[torch.Generator] = ()
        self._states: list[Tensor] = [torch.default_generator.get_state()] * n

    def __len__(self) -> int:
        return len(self._states)

    def keep(self, replica: int) -> None:
        self._states[replica] = torch.default_generator.get_state()

    def copy(self) -> "HostStreams":
        twin = copy(self)
        twin._states = list(self._states)
        return twin

    @contextmanager
    def of(self, replica: int) -> Iterator[None]:
        torch.default_generator.set_state(self._states[replica])
        yield
        self.keep(replica)


class CudaStreams:
    """Generators of a GPU, whose states the default one shares in turn: in a CUDA graph, which remembers from which
    generator a kernel drew and reads its seed anew at each replay, states cannot be saved and set."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = generators
        self._default = torch.cuda.default_generators[generators[0].device.index]

    def __len__(self) -> int:
        return len(self.generators)

    def keep(self, replica: int) -> None:
        self.generators[replica].set_state(self._default.get_state())

    def copy(self) -> "CudaStreams":
        return CudaStreams([generator.clone_state() for generator in self.generators])

    @contextmanager
    def of(self, replica: int) -> Iterator[None]:
        own = self._default.graphsafe_get_state()
        self._default.graphsafe_set_state(self.generators[replica])
        try:
            yield
        finally:
            self._default.graphsafe_set_state(own)


def streams_of(n: int, device: torch.device) -> Streams:
    """N streams of a device."""
    return CudaStreams([torch.Generator(device) for _ in range(n)]) if device.type == "cuda" else HostStreams(n)


class Replicated(TorchFunctionMode):
    """A context around one ``torch.vmap(..., randomness="error")`` over the replicas whose streams these are.

    Values of ``*_like`` and dropout are drawn in the order of a contiguous tensor: where a replica alone would draw
    them for one that is not, such as a channels_last feature map, the noise differs.

    Raises:
        NotStackableError: a random call that cannot be split; it is named.
    """

    def __init__(self, streams: Streams) -> None:
        super().__init__()
        self.streams = streams
        # A vmap or a gradient inside of vmap has a level of its own.
        self._level = 1 + (_functorch.maybe_current_level() or 0)
        self._rules: dict[Callable[..., Any], Callable[..., Any]] = {
            F.linear: self._linear,
            F.group_norm: self._group_norm,
            F.dropout: self._dropout,
            torch.dropout: self._dropout,
            F.scaled_dot_product_attention: self._attention,
        }

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _RANDOM:
            return self._draw(func, args, kwargs)
        if func in _RANDOM_LIKE:
            return self._draw(func, (_blank(args[0]), *args[1:]), kwargs)
        if func in _RANDOM_FILL:
            return self._fill(func, args, kwargs)
        if func in _WITHOUT_RULE:
            return args[0].copy_(_WITHOUT_RULE[func](*args, **kwargs))
        try:
            return self._rules.get(func, func)(*args, **kwargs)
        except RuntimeError as error:
            if "randomness" in str(error):
                raise _unknown(func) from error
            raise

    # -- noise -------------------------------------------------------------------------------------

    def _draw(self, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """``func`` for each replica in turn, (N, ...), as a value inside vmap, whose shape lacks the N."""
        if kwargs.get("generator") is not None or _functorch.maybe_current_level() != self._level:
            raise _unknown(func)
        drawn: list[Tensor] = []
        with _outside():  # vmap allows nothing random
            for replica in range(len(self.streams)):
                own = [_slice(value, replica) for value in args]
                own_named = {name: _slice(value, replica) for name, value in kwargs.items()}
                with self.streams.of(replica):
                    drawn.append(func(*own, **own_named))
            stacked = torch.stack(drawn)
        return _functorch._add_batch_dim(stacked, 0, self._level)

    def _fill(self, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        filled: Tensor = args[0]
        draw = lambda like, *rest, **named: func(torch.empty_like(like), *rest, **named)  # noqa: E731
        drawn = self._draw(draw, (_blank(filled), *args[1:]), kwargs)
        if _functorch.is_batchedtensor(filled):
            return filled.copy_(drawn)
        if not filled.is_floating_point():
            raise _unknown(func)
        # One tensor for all has no room for the noise of each. ``torch.empty(...).normal_()`` uses what is returned;
        # the tensor itself must not be used.
        filled.fill_(math.nan)
        return drawn

    def _dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return input
        mask = self._draw(F.dropout, (torch.ones_like(_blank(input)), p), {})
        return input.mul_(mask) if inplace else input * mask

    # -- what vmap has no good rule for ------------------------------------------------------------

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x (N, ..., I), W (N, O, I), b (N, O) -> (N, ..., O) in one kernel, for which vmap takes eight."""
        given = (input, weight, bias)
        if input.dim() < 2 or not all(map(self._is_stacked, given)):
            return F.linear(input, weight, bias)
        x, w, b = map(_functorch.get_unwrapped, given)
        with _outside():
            rows = x if x.dim() == 3 else x.flatten(1, -2)
            y = torch.baddbmm(b.unsqueeze(1), rows, w.mT)
            y = y if x.dim() == 3 else y.unflatten(1, x.shape[1:-1])
        return _functorch._add_batch_dim(y, 0, self._level)

    def _attention(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """q (N, B, ..., T, D), k and v (N, B, ..., S, D): the replicas' batches as one."""
        plain = not args and not kwargs.get("dropout_p") and query.dim() > 2
        if not plain or not all(map(self._is_stacked, (query, key, value))):
            return F.scaled_dot_product_attention(query, key, value, *args, **kwargs)
        mask: Tensor | None = kwargs.pop("attn_mask", None)
        masks_differ = self._is_stacked(mask)
        with _outside():
            q, k, v = map(_functorch.get_unwrapped, (query, key, value))
            if mask is not None:
                of_replicas = _functorch.get_unwrapped(mask) if masks_differ else mask.unsqueeze(0)
                kwargs["attn_mask"] = _of_rows(of_replicas, q)
            heads = F.scaled_dot_product_attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), **kwargs)
        return _functorch._add_batch_dim(heads.unflatten(0, q.shape[:2]), 0, self._level)

    def _group_norm(
        self,
        input: Tensor,
        num_groups: int,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> Tensor:
        """x (N, B, C, ...), w and b (N, C): all batches as one; vmap fails where it asks for the memory layout."""
        given = (input, weight, bias)
        if not all(map(self._is_stacked, given)):
            return F.group_norm(input, num_groups, weight, bias, eps)
        x, w, b = map(_functorch.get_unwrapped, given)
        with _outside():
            normal = F.group_norm(x.flatten(0, 1), num_groups, eps=eps).unflatten(0, (len(x), -1))
            w, b = (each.view(len(x), 1, -1, *[1] * (x.dim() - 3)) for each in (w, b))
            y = torch.addcmul(b, normal, w)
        return _functorch._add_batch_dim(y, 0, self._level)

    def _is_stacked(self, value: Any) -> bool:
        """Whether the value is one for each replica, the replicas in its first dimension."""
        return (
            isinstance(value, Tensor)
            and _functorch.is_batchedtensor(value)
            and _functorch.maybe_get_level(value) == self._level
            and _functorch.maybe_get_bdim(value) == 0
        )


@contextmanager
def _outside() -> Iterator[None]:
    """Step out of the innermost vmap for a while."""
    layer = _functorch.pop_dynamic_layer_stack()
    try:
        yield
    finally:
        _functorch.push_dynamic_layer_stack(layer)


def _slice(value: Any, replica: int) -> Any:
    """A replica's part of a value: its slice of a tensor with a batch dimension, else the value itself."""
    if not (isinstance(value, Tensor) and _functorch.is_batchedtensor(value)):
        return value
    return _functorch.get_unwrapped(value).select(_functorch.maybe_get_bdim(value), replica)


def _blank(like: Tensor) -> Tensor:
    """A contiguous tensor of the shape that one replica has."""
    return torch.empty(like.shape, dtype=like.dtype, device=like.device)


def _of_rows(mask: Tensor, query: Tensor) -> Tensor:
    """A mask (N or 1, [B or 1, ...,] T, S) for queries (N, B, ..., T, D) whose replicas' batches become one:
    (N B or 1, ..., T, S), a copy only if rows or replicas differ."""
    mask = mask[(slice(None), *[None] * (query.dim() - mask.dim()))]
    return mask[0] if mask.shape[:2] == (1, 1) else mask.expand(*query.shape[:2], *mask.shape[2:]).flatten(0, 1)


def _unknown(func: Callable[..., Any]) -> NotStackableError:
    name = getattr(func, "__qualname__", None) or repr(func)
    return NotStackableError(f"noise is drawn by {name}, which replicas cannot draw each for itself")

"""N models of one structure as one: ``torch.vmap`` over their stacked parameters, buffers and numbers.

Small networks are limited by the launching of their operations, not by arithmetic, so N of them can cost little more
than one. The models stay ordinary ones: each parameter and buffer becomes a slice of a common tensor and keeps its
identity, so optimizers, checkpoints and validation see what they always saw.

    common tensor (N, ...) --- slice i ---> parameter of replica i, in the same storage
    losses: vmap over the common tensors    gradients: slices of the common tensors' gradients

What may differ between the models: the values of parameters and buffers, public attributes of modules that are floats
(such as ``ELBO.free_bits``), and what losses do not read. Everything else must be equal. That the stacked losses equal
those of the models themselves is checked in ``attelbo.training.replicas.steps``.

Shapes: N replicas, B rows, P parameters.
"""

from collections.abc import Callable, Container, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations
from torchmetrics import Metric

from attelbo.data.batch import Batch
from attelbo.errors import first_line
from attelbo.models import Model, Player
from attelbo.models.base import Terms
from attelbo.training.replicas.functions import NotStackableError, Replicated, Streams

_DISCRETE = (int, str, bool, type(None), FunctionType, type)
"""Kinds of attributes that decide what is computed, and must be equal."""


class ModelStack:
    """The losses and gradients of N models, computed together.

    Args:
        models: of one class and structure, on one device. From now on their parameters and buffers are slices of
            common tensors.

    Raises:
        NotStackableError: they differ in something that cannot be stacked; it is named.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        numbers = differing_numbers(models)
        template = models[0]
        kept = template.state_dict().keys()
        common: dict[Tensor, Tensor] = {}  # from the template's tensors
        self._slices: list[tuple[Tensor, list[Tensor]]] = []
        for name, tensor in _tensors(template).items():
            tensors = [_tensors(model)[name] for model in models]
            # What is not saved follows from the configuration, such as an index: the template's serves all.
            if name in kept or any(not torch.equal(tensor, other) for other in tensors):
                common[tensor] = stack_tensors(tensors)
                self._slices.append((common[tensor], tensors))
        floating = next(tensor for tensor in common.values() if tensor.is_floating_point())
        self._keys = [_key(module, name) for module, name in numbers]
        self._places = [
            *_places(template, common),
            *((vars(template.get_submodule(module)), name) for module, name in numbers),
        ]
        self._varying = [
            *(common[tensor] for tensor in (places[name] for places, name in _places(template, common))),
            *(floating.new_tensor(values) for values in numbers.values()),
        ]
        self._players = [
            _StackedPlayer(own[0].losses, [common[parameter] for parameter in own[0].parameters], own)
            for own in zip(*(model.players() for model in models), strict=True)
        ]

    def is_whole(self) -> bool:
        """Whether the models' tensors still are slices of the common ones: a move to another device ends it."""
        for common, tensors in self._slices:
            start, size = common.data_ptr(), common.stride(0) * common.element_size()
            if any(tensor.data_ptr() != start + place * size for place, tensor in enumerate(tensors)):
                return False
        return True

    def losses(self, place: int, batches: Sequence[Batch], streams: Streams) -> Terms:
        """The terms of the player at ``place`` on one batch for each model, each (N,); with gradients.

        The batches have equal shapes; each model draws its noise from its own stream.

        Raises:
            NotStackableError: the model computes something that cannot be done for all at once.
        """
        varying = [index for index, value in enumerate(batches[0]) if isinstance(value, Tensor)]
        columns = list(zip(*batches, strict=True))
        losses = self._players[place].losses
        parts: list[Any] = list(batches[0])

        def one(state: Sequence[Tensor], inputs: Sequence[Tensor]) -> Terms:
            for (values, name), value in zip(self._places, state, strict=True):
                values[name] = value
            for index, value in zip(varying, inputs, strict=True):
                parts[index] = value
            return losses(batches[0]._make(parts))

        before = [values[name] for values, name in self._places]
        try:
            with Replicated(streams):
                inputs = [torch.stack(columns[index]) for index in varying]
                return torch.vmap(one, randomness="error")(self._varying, inputs)
        except (RuntimeError, ValueError, TypeError) as error:
            reason = first_line(error)
            if self._keys and "data-dependent" in reason:
                reason = f"{', '.join(self._keys)} is not the same for all replicas and decides what is computed"
            raise NotStackableError(reason) from error
        finally:
            for (values, name), value in zip(self._places, before, strict=True):
                values[name] = value

    def backward(self, place: int, loss: Tensor) -> None:
        """Add the gradients of the player's losses (N,) to those of the common parameters."""
        common = self._players[place].common
        loss.sum().backward(inputs=common if len(self._players) > 1 else None)

    def hand_out_gradients(self, place: int) -> None:
        """Give the parameters of the player of each model their slices of the gradients."""
        player = self._players[place]
        for index, common in enumerate(player.common):
            if common.grad is not None:
                for own, gradient in zip(player.own, common.grad.unbind(), strict=True):
                    own[index].grad = gradient

    def clear_gradients(self, place: int) -> None:
        """Forget the common gradients; those handed out stay."""
        for common in self._players[place].common:
            common.grad = None

    def parameters(self, place: int) -> tuple[list[Tensor], list[list[nn.Parameter]]]:
        """The player's common parameters, P of (N, ...), and those of each model, N lists of P."""
        return self._players[place].common, self._players[place].own


class _StackedPlayer:
    """A player of the template, with its parameters in common and in each model."""

    def __init__(self, losses: Callable[[Batch], Terms], common: list[Tensor], players: Sequence[Player]) -> None:
        self.losses = losses
        self.common = common  # P tensors (N, ...)
        self.own = [player.parameters for player in players]  # N lists of P


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


def _places(model: nn.Module, tensors: Container[Tensor]) -> list[tuple[dict[str, Any], str]]:
    """All places of the tensors in the modules. ``functional_call`` would search for them at each call, which takes as
    long as a small network."""
    return [
        (values, name)
        for module in model.modules()
        for values in (module._parameters, module._buffers)
        for name, tensor in values.items()
        if tensor is not None and tensor in tensors
    ]


@torch.no_grad()
def stack_tensors(tensors: Sequence[Tensor]) -> Tensor:
    """A common tensor (N, ...) of which the tensors, as they are now, become the slices; each keeps its layout."""
    first = tensors[0]
    strides = (first.numel(), *torch.empty_like(first).stride())
    common = torch.empty_strided((len(tensors), *first.shape), strides, dtype=first.dtype, device=first.device)
    for place, tensor in enumerate(tensors):
        common[place].copy_(tensor)
        tensor.data = common[place]
    return common.requires_grad_(first.requires_grad)


# -- what is equal and what is not ---------------------------------------------------------------------


def differing_numbers(models: Sequence[nn.Module]) -> dict[tuple[str, str], list[float]]:
    """The numbers in which models of one structure differ: (module, attribute) -> N values.

    Public attributes of all modules are compared: numbers, strings, functions, and lists of them. Other objects and
    private attributes are not; if losses depend on them, the later comparison of losses fails.

    Raises:
        NotStackableError: they differ in something else, which is named.
    """
    first = models[0]
    numbers: dict[tuple[str, str], list[float]] = {}
    for other in models[1:]:
        if [name for name, _ in first.named_modules()] != [name for name, _ in other.named_modules()]:
            raise NotStackableError("model: other parts in one replica than in another")
    for name, module in first.named_modules():
        siblings = [model.get_submodule(name) for model in models]
        # Each module with a parametrization has a class of its own; what it is made of are modules too.
        kinds = {type_before_parametrizations(sibling) for sibling in siblings}
        if len(kinds) > 1:
            raise NotStackableError(f"{_key(name)}: {' and '.join(sorted(kind.__name__ for kind in kinds))}")
        _check_shapes(name, siblings)
        # Metrics hold what validation has counted. Not isinstance: the abstract class asks all its subclasses, 0.4 s.
        if Metric not in type(module).__mro__:
            numbers |= _differing_attributes(name, siblings)
    return numbers


def _check_shapes(name: str, siblings: Sequence[nn.Module]) -> None:
    shapes = [
        {key: (tuple(tensor.shape), tensor.dtype) for key, tensor in (*s.named_parameters(), *s.named_buffers())}
        for s in siblings
    ]
    for other in shapes[1:]:
        for key in shapes[0] | other:
            if shapes[0].get(key) != other.get(key):
                raise NotStackableError(f"{_key(name, key)}: {shapes[0].get(key)} and {other.get(key)}")


def _differing_attributes(name: str, siblings: Sequence[nn.Module]) -> dict[tuple[str, str], list[float]]:
    found: dict[tuple[str, str], list[float]] = {}
    for attribute in vars(siblings[0]):
        values = [vars(sibling).get(attribute) for sibling in siblings]
        if attribute.startswith("_") or not all(map(_is_plain, values)) or all(v == values[0] for v in values[1:]):
            continue
        if not all(type(value) in (int, float) for value in values) or float not in map(type, values):
            shown = " and ".join(dict.fromkeys(map(str, values)))
            raise NotStackableError(f"{_key(name, attribute)}: {shown}")
        found[name, attribute] = [float(value) for value in values]  # pyright: ignore[reportArgumentType]
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, (float, *_DISCRETE))


def _key(*names: str) -> str:
    return ".".join(("model", *filter(None, names)))

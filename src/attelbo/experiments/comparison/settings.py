"""Settings: runs that differ in nothing but their seed, and short labels that tell one setting from another.

When a part differs, all its arguments do. So a choice of a group (``model/objective=iwae``) or a class stands for all
its arguments, and an argument is shown only where it differs between runs of the same choice.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attelbo.building import flatten
from attelbo.errors import UserError, did_you_mean, nearest
from attelbo.experiments.comparison.runs import Run
from attelbo.experiments.listing import nearest_in_parts
from attelbo.experiments.rundir import computed

ASIDE = {"seed", "data.seed", "trainer.threads"}
"""Keys in which the runs of one setting may differ."""

_NO_GROUPS = ("name", "ckpt")
"""Keys without a dot that have a value of their own."""

LACKS = "-"
"""The value of a key that a setting does not have."""

_FEW = 4
"""Keys that all stand in a label; of more, only the values that most settings do not have."""

Values = Mapping[str, str]
"""Key -> value, as text."""


@dataclass(frozen=True, eq=False)
class Setting:
    """One cell of a comparison."""

    values: Values
    """Values of the keys that differ between the settings; empty if there is only one setting."""
    label: str
    """As few of them as tell it from the others, or from what most have; its run's name if there are none."""
    runs: Sequence[Run]

    @property
    def seeds(self) -> list[int]:
        """Each once, of however many runs."""
        return list(dict.fromkeys(run.seed for run in self.runs))


def settings_of(runs: Sequence[Run], by: Sequence[str] = ()) -> list[Setting]:
    """The runs by setting.

    Args:
        runs: to be grouped.
        by: keys, or groups, that tell settings apart; whatever else differs is averaged over. Those that do differ if
            empty.

    Raises:
        UserError: a key that no run has.
    """
    flat = [described(run) for run in runs]
    known = dict.fromkeys(key for one in flat for key in one)
    for key in by:
        if key not in known:
            guess = nearest(key, known) or nearest_in_parts(key, known)
            remedy = did_you_mean(guess, "config.yaml of each run has them all")
            raise UserError(f"--by {key}: no such key{remedy}")
    keys = list(by) or differing(flat)
    cells: dict[tuple[str, ...], list[Run]] = {}
    for run, values in zip(runs, flat, strict=True):
        cells.setdefault(tuple(values.get(key, LACKS) for key in keys), []).append(run)
    rows = [dict(map(_shown, keys, values)) for values in cells]
    return [
        Setting(row, label or str(members[0].config["name"]), sorted(members, key=lambda run: run.seed))
        for row, label, members in zip(rows, _labels(rows), cells.values(), strict=True)
    ]


def _labels(rows: Sequence[Values]) -> list[str]:
    """For each row, what distinguishes it from the others; without the usual values, if there are many."""
    telling = _telling(rows)
    whole = [_label(row, dict.fromkeys(telling, LACKS)) for row in rows]
    if len(telling) <= _FEW:
        return whole
    usual = {key: Counter(row[key] for row in rows).most_common(1)[0][0] for key in telling}
    brief = [_label(row, usual) for row in rows]
    return brief if len(set(brief)) == len(rows) else whole


def _label(row: Values, usual: Values) -> str:
    return " ".join(f"{key}={row[key]}" for key in usual if row[key] not in (LACKS, usual[key]))


def _telling(rows: Sequence[Values]) -> list[str]:
    """Keys that suffice to tell the rows apart: choices of groups first, then those with the most values."""
    chosen: list[str] = []
    told = 1
    keys = list(rows[0]) if rows else []
    for key in sorted(keys, key=lambda key: ("." in key, -len({row[key] for row in rows}))):
        parts = len({tuple(row[each] for each in (*chosen, key)) for row in rows})
        if parts > told:
            chosen.append(key)
            told = parts
    return [key for key in keys if key in chosen]


def _shown(key: str, value: str) -> tuple[str, str]:
    """A key and its value as they are shown: ``model.objective=IWAE`` for the class of a part."""
    return (key.removesuffix("._target_"), value.rpartition(".")[2]) if key.endswith("._target_") else (key, value)


def described(run: Run) -> Values:
    """What a run computes: the choices of groups (``model/objective``), then every key (``model.objective.beta``)."""
    flat = {key: text for key, text in leaves(computed(run.config)).items() if key not in ASIDE}
    choices = {
        group: choice
        for group, choice in sorted(run.choices.items(), key=lambda item: (item[0].count("/"), item[0]))
        if choice and any(f"{key}.".startswith(f"{group.replace('/', '.')}.") for key in flat)
    }
    return choices | {key: text for key, text in flat.items() if key not in choices}  # an empty part is a leaf


def differing(flat: Sequence[Values]) -> list[str]:
    """The keys that tell the settings apart, the fewest that do."""
    chosen: list[str] = []
    keys = list(dict.fromkeys(key for one in flat for key in one))
    for key in sorted(keys, key=_rank):
        above = [other for other in chosen if _node(key).startswith(_node(other))]
        parts: dict[tuple[str | None, ...], set[str | None]] = {}
        for one in flat:
            parts.setdefault(tuple(one.get(other) for other in above), set()).add(one.get(key))
        if any(len(values) > 1 for values in parts.values()) and (_rank(key) or _matters(key, flat)):
            chosen.append(key)
    # The name follows from the rest, more often than not.
    return [key for key in chosen if key != "name"] or chosen


def _matters(group: str, flat: Sequence[Values]) -> bool:
    """Whether a choice of a group made a difference: two choices may mean the same configuration."""
    node = _node(group)
    return len({tuple(item for item in one.items() if item[0].startswith(node)) for one in flat}) > 1


def _rank(key: str) -> int:
    """Choices of groups first, then classes, then all else."""
    if "." not in key and key not in _NO_GROUPS:
        return 0
    return 1 if key.endswith("._target_") else 2


def _node(key: str) -> str:
    """The prefix, with a dot at its end, of the keys that a key stands for."""
    return key.removesuffix("_target_") if key.endswith("._target_") else f"{key.replace('/', '.')}."


def leaves(config: Mapping[str, Any]) -> Values:
    """Dotted key -> value, as text, of every leaf."""
    return {key: _text(value) for key, value in flatten(config)}


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return str(value)

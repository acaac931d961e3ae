"""How a sequence-to-sequence model translates some sentences."""

from typing import Any, Unpack

from torch import nn

from attelbo.checks import check_at_least
from attelbo.models import SequenceToSequence
from attelbo.training.callbacks.exhibit import Exhibit, ExhibitedData, ExhibitOptions


class Translations(Exhibit):
    """``translations``: sources, their targets and what a greedy search finds.

    Args:
        n: rows.
        options: see :class:`ExhibitOptions`.

    Raises:
        ValueError: n is below 1, or every_n_epochs negative.
    """

    def __init__(self, n: int = 10, **options: Unpack[ExhibitOptions]) -> None:
        super().__init__(**options)
        check_at_least(1, n=n)
        self.n = n

    def serves(self, model: nn.Module, data: ExhibitedData) -> bool:
        return isinstance(model, SequenceToSequence) and hasattr(data, "target_tokenizer")

    def works(self, model: SequenceToSequence, data: Any) -> dict[str, str]:
        batch = self.rows(data, self.n, model.device)
        assert batch.y is not None
        found = model.translate(batch.x)
        source, target = data.tokenizer, data.target_tokenizer
        rows = zip(batch.x.tolist(), batch.y.tolist(), found, strict=True)
        lines = [
            f"     source  {source.decode(x)}\n     target  {target.decode(y)}\ntranslation  {target.decode(said)}\n"
            for x, y, said in rows
        ]
        return {"translations": "\n".join(lines)}

"""The numbers of a result that are shown, and what a reader should know of them."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from attelbo.metrics import Measure

_FEW_SAMPLES = 5.0
"""Effective importance samples, the harmonic mean over rows. With fewer, log p(x) is underestimated by more than a
tenth of a nat on the average: by the delta method the bias of the logarithm of a mean is half its relative variance,
1 / (2 of these)."""

_TRIAL = 50
"""Whoever asks for fewer importance samples wants to see that it runs."""


class Number(NamedTuple):
    """A number in a result, and how it is shown."""

    measure: Measure
    value: float
    error: float | None
    """Its standard error, where one is known."""


def numbers_of(result: Mapping[str, Any], split: str) -> Iterator[Number]:
    """The numbers of a result that are shown, in their order."""
    metrics = result.get("metrics", {})
    for measure in itertools.starmap(Measure, result.get("measures", ())):
        key = f"{split}/{measure.key}"
        if key in metrics:
            error = metrics.get(f"{key}_std_error", math.nan)
            yield Number(measure, metrics[key], error if math.isfinite(error) else None)


def remarks(result: Mapping[str, Any], split: str) -> Iterator[str]:
    """A sentence on each of these numbers that means less than it seems to."""
    shown = {each.measure.key: each.value for each in numbers_of(result, split)}
    if shown.get("active_units") == 0 and "kl" in shown:
        yield (
            f"no latent dimension is active, the KL is {shown['kl']:z.2f} nats: the posterior has collapsed onto the "
            "prior, or was hardly trained; a warm-up of the KL's weight (as in model=warm_up_vae, of texts "
            "model=annealed_text_vae) or free bits may help"
        )
    effective, samples = shown.get("effective_sample_size", math.inf), result.get("nll_samples", 0)
    if effective < _FEW_SAMPLES and samples >= _TRIAL:
        yield (
            f"the NLL rests on {effective:.1f} of {samples:,} importance samples, and the true one is lower; "
            "more of them (evaluation.n_samples) come closer to it, annealing (attelbo evaluate gaps=true) closer still"
        )

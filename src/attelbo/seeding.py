"""Seeds as pure functions: every random choice of a run is a function of *where* it happens.

The order of an epoch is ``f(seed, "order", epoch)``, the noise of an optimizer step
``f(seed, "step", step, rank)``, and so on. No generator state is ever saved, and still a run that was
interrupted anywhere goes on bit for bit, because nothing depends on what was drawn before.
"""

import zlib

SPLITMIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
"""The numbers of SplitMix64: what is added, and the two factors."""
_STEP, _FIRST, _SECOND = SPLITMIX
_MASK = (1 << 64) - 1


def derive_seed(seed: int, purpose: str, *position: int) -> int:
    """A well-mixed 63-bit seed from the run's seed, a purpose and a position (epoch, step, rank, ...).

    Each part goes through one round of SplitMix64 (Steele, Lea & Flood 2014), so neighbouring
    positions give unrelated streams. About a microsecond: cheap enough for every optimizer step.
    """
    state = _mix((seed & _MASK) ^ (zlib.crc32(purpose.encode()) << 32))
    for part in position:
        state = _mix(state ^ (part & _MASK))
    return state >> 1


def _mix(x: int) -> int:
    x = (x + _STEP) & _MASK
    x = ((x ^ (x >> 30)) * _FIRST) & _MASK
    x = ((x ^ (x >> 27)) * _SECOND) & _MASK
    return x ^ (x >> 31)

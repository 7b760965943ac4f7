"""Does other arithmetic of the node reproduce what was observed? Rounding, exponents, limits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, get_args

import numpy as np

from espdl_hil.diagnosis.accumulator import exact_product
from espdl_hil.diagnosis.cause import Cause, Explanation
from espdl_hil.diagnosis.replay import OTHER_ROUNDING, Mode, rounding_mode, shift_exponents

if TYPE_CHECKING:
    from espdl_hil.compare import Array
    from espdl_hil.diagnosis.accumulator import Sums
    from espdl_hil.diagnosis.node_replay import NodeReplay

SHIFTS = (1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6, 7, -7, 8, -8)
NEAR = 4  # of these, the shifts that are tried on parts: an exponent goes wrong by a step or two
TABLES = ("LUT",)  # table nodes neither round nor shift at run time


def rounding(replay: NodeReplay, sums: Sums | None) -> Explanation | None:
    """Another rounding of the node's result."""
    target = replay.mismatch.target
    other = OTHER_ROUNDING.get(target)
    if other and replay.explained_by(replay.again(target=other)):
        return _rounds(replay, rounding_mode(other), rounding_mode(target))
    if sums:
        return _other_mode(replay, sums, "", sums.mode)
    product = exact_product(replay)  # ESP-DL's C code rounds that of int16 to float32 first
    what, usual = "the exact product ", "its float32 value"
    return _other_mode(replay, product, what, usual) if product else None


def _other_mode(replay: NodeReplay, sums: Sums, what: str, usual: str) -> Explanation | None:
    for mode in get_args(Mode):
        if mode != usual and replay.explained_by(sums.evaluate(mode=mode)):
            return _rounds(replay, f"{what}{mode}", usual)
    return None


def _rounds(replay: NodeReplay, mode: str, usual: str) -> Explanation:
    fact = f"rounding {mode} instead of {usual} reproduces {replay.span}"
    return Explanation(Cause.ROUNDING, (fact,))


def exponent(replay: NodeReplay, sums: Sums | None) -> Explanation | None:
    """A shift that is wrong: of the whole tensor, of single channels, or of the bias."""
    if replay.quantized:
        for by in SHIFTS:
            if replay.explained_by(_shifted_again(replay, by)):
                return _shifted(replay, "a shift of the finished result", by)
            edit = partial(shift_exponents, name=replay.output, by=by)
            if replay.explained_by(replay.again(edit)):
                return _shifted(replay, "the output exponent", by)
    if sums is None:
        return None
    for by in SHIFTS:
        if replay.explained_by(sums.evaluate(shift_by=by)):
            return _shifted(replay, "the shift", by)
    return _of_bias(replay, sums) or _per_channel(replay, sums)


def _shifted_again(replay: NodeReplay, by: int) -> Array:
    """The expected result, shifted right once more, rounding down; left if *by* is negative."""
    low, high = replay.limits
    wide = replay.expected.astype(np.int64)
    moved = wide >> by if by > 0 else wide << -by
    return moved.clip(low, high).astype(replay.expected.dtype)


def _of_bias(replay: NodeReplay, sums: Sums) -> Explanation | None:
    """The bias added at another exponent; a bias that is gone altogether is no matter of shift."""
    if sums.factors is None:
        return None
    bias = sums.factors.bias
    for by in SHIFTS[:NEAR]:
        shifted = bias << by if by > 0 else bias >> -by
        values = sums.factors.sums(bias=shifted)
        if shifted.any() and replay.explained_by(sums.evaluate(values=values)):
            return _shifted(replay, "the bias exponent", by)
    return None


def _shifted(replay: NodeReplay, what: str, by: int) -> Explanation:
    fact = f"{what} off by {by:+d} reproduces {replay.span}"
    return Explanation(Cause.EXPONENT, (fact,))


def _per_channel(replay: NodeReplay, sums: Sums) -> Explanation | None:
    """Each channel that differs has a shift that reproduces it."""
    observed = replay.in_rows(replay.observed)
    if sums.shift.ndim == 0 or len(replay.channels) == observed.shape[1]:
        return None
    found: dict[int, int] = {}
    for by in SHIFTS[:NEAR]:
        same = (sums.evaluate(shift_by=by) == observed).all(0)
        found |= {int(c): by for c in replay.channels if same[c] and int(c) not in found}
    if len(found) < len(replay.channels):
        return None
    channels = ", ".join(f"{channel} by {by:+d}" for channel, by in sorted(found.items())[:6])
    fact = f"filter exponents off in channel {channels}: reproduces {replay.span}"
    return Explanation(Cause.EXPONENT, (fact,))


def saturation(replay: NodeReplay, sums: Sums | None) -> Explanation | None:
    """Another treatment of what leaves the output's range, or the accumulator's."""
    if not replay.quantized or replay.node.op_type in TABLES:
        return None
    low, high = replay.limits
    at_limit = (replay.expected == low) | (replay.expected == high)
    found = _by_sums(replay, sums) if sums else None
    if found is None and bool(at_limit[replay.differs].all()):
        found = _wrapped(replay) or _clamped(replay)
    if found is None:
        return None
    limit, count = int(at_limit[replay.differs].sum()), int(replay.differs.sum())
    where = f"{count} elements differ; {low} or {high} is expected in {limit} of them"
    return Explanation(Cause.SATURATION, (found, where))


def _by_sums(replay: NodeReplay, sums: Sums) -> str | None:
    if replay.explained_by(sums.evaluate(overflow="wraps")):
        return f"a result that wraps instead of saturating reproduces {replay.span}"
    if replay.explained_by(sums.evaluate(overflow="clamps symmetrically")):
        return f"saturating at {-replay.limits[1]} reproduces {replay.span}"
    if replay.explained_by(sums.evaluate(relu=not sums.relu)):
        change = "without" if sums.relu else "with"
        return f"the result {change} a clamp at 0 (Relu) reproduces {replay.span}"
    lanes = replay.mismatch.target == "esp32s3" and replay.expected.dtype == np.int8
    if sums.factors is None or not lanes:
        return None
    if replay.explained_by(sums.evaluate(values=sums.factors.in_lanes())):
        return f"sums in 20-bit saturating lanes reproduce {replay.span}"
    return None


def _wrapped(replay: NodeReplay) -> str | None:
    """Compare with the result at a coarser exponent, which does not saturate, modulo the range."""
    size = 1 << (8 * replay.expected.dtype.itemsize)
    for by in (3, 2, 1):
        coarse = replay.again(partial(shift_exponents, name=replay.output, by=by))
        if coarse is None:
            return None
        away = replay.observed.astype(np.int64) - (coarse.astype(np.int64) << by)
        away = (away + size // 2) % size - size // 2
        if bool((np.abs(away) <= (1 << by))[replay.differs].all()):
            return "every differing element is the unsaturated result modulo the range"
    return None


def _clamped(replay: NodeReplay) -> str | None:
    """Where one limit is expected, another value stands, the same one each time."""
    expected, observed = replay.expected[replay.differs], replay.observed[replay.differs]
    stops = {int(limit): np.unique(observed[expected == limit]) for limit in np.unique(expected)}
    low, high = replay.limits
    telling = len(observed) > 1 or int(observed[0]) in (low, high, -high)
    if not telling or any(len(values) > 1 for values in stops.values()):
        return None
    pairs = " and ".join(f"{values[0]} instead of {limit}" for limit, values in stops.items())
    return f"at the limit the result is {pairs}, each time"

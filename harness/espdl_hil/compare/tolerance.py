"""How far an observed value may be from the expected one."""

from __future__ import annotations

import re
from dataclasses import dataclass

from espdl_hil.errors import ConfigError

FLOAT_RELATIVE = 1e-6  # float outputs pass through a desktop expf here and newlib's there

_TERM = re.compile(r"(?P<lsb>\d+)\s*(?:lsb)?|(?P<relative>\d+(?:\.\d*)?(?:e[+-]?\d+)?)\s*rel", re.I)


@dataclass(frozen=True)
class Tolerance:
    """What still counts as equal.

    Attributes:
        max_lsb: Largest difference of an integer element, in quantization steps.
        relative: Largest difference of a float element, relative to the expected one.
    """

    max_lsb: int = 0
    relative: float = FLOAT_RELATIVE

    def __post_init__(self) -> None:
        if self.max_lsb < 0 or not 0 <= self.relative < 1:
            raise ConfigError(
                f"tolerance {self}: max_lsb must be at least 0 and relative between 0 and 1"
            )

    def __str__(self) -> str:
        lsb = "exact" if self.max_lsb == 0 else f"{self.max_lsb} LSB"
        return lsb if self.relative == FLOAT_RELATIVE else f"{lsb}, float {self.relative:g}"


EXACT = Tolerance()


def parse_tolerance(text: str) -> Tolerance:
    """Read a tolerance as people write it.

    Args:
        text: ``0``, ``exact``, ``1``, ``1lsb``, ``1e-5rel``, or two terms with a comma between.

    Returns:
        The tolerance; what *text* does not name keeps its default.

    Raises:
        ConfigError: *text* is none of these.

    >>> parse_tolerance("1lsb")
    Tolerance(max_lsb=1, relative=1e-06)
    >>> parse_tolerance("0, 1e-5rel").relative
    1e-05
    """
    max_lsb: int | None = None
    relative: float | None = None
    for term in text.split(","):
        match = _TERM.fullmatch("0" if term.strip().lower() == "exact" else term.strip())
        if match and match["lsb"] and max_lsb is None:
            max_lsb = int(match["lsb"])
        elif match and match["relative"] and relative is None:
            relative = float(match["relative"])
        else:
            raise ConfigError(
                f"tolerance {text!r} is not understood",
                hint="write 0 (exact), 1lsb, 1e-5rel, or 1lsb,1e-5rel",
            )
    return Tolerance(
        max_lsb=max_lsb or 0, relative=FLOAT_RELATIVE if relative is None else relative
    )

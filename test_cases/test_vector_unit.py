"""The P4's vector unit has modes that other code of the core can leave behind.

The firmware puts them right before each step and says so. Only a simulated devkit can be made to
run such code on purpose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from espdl_hil.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil import Hil

pytestmark = pytest.mark.negative


@pytest.fixture
def p4(hil: Hil) -> Iterator[Hil]:
    """A case on a simulated P4, which is left in order."""
    if hil.case.target != "esp32p4":
        pytest.skip("only the P4's vector unit has such modes")
    try:
        devkit = hil.devkit
    except ConfigError as error:
        pytest.skip(error.message)
    yield hil
    devkit.clear()


def test_modes_left_by_other_code_are_put_right_or_told(p4: Hil) -> None:
    """A task computes with esp-nn and esp-dsp: between chunks, which is harmless, or in a step."""
    from espdl_hil.simulator import faults

    expected = p4.stream()
    p4.devkit.inject(faults.RoundingLost())
    p4.devkit.inject(faults.MisalignedMode())
    between = p4.stream(after=1)
    assert between == expected
    assert "the firmware put it right" in between.findings[0]

    p4.devkit.inject(faults.MisalignedMode(late=True))
    assert "their values may be wrong" in p4.stream(after=1).findings[0]

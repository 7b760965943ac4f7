"""Controls: each breaks one thing on purpose, and the harness must notice.

A control that finds nothing to break (a model without state has no order to lose) says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from espdl_hil.device.errors import StaleArtifactError

if TYPE_CHECKING:
    from espdl_hil import Hil

pytestmark = pytest.mark.negative


def test_chunks_out_of_order_are_noticed(hil: Hil) -> None:
    """Two chunks change places; the stream is no longer the offline model's."""
    assert hil.stream(order=hil.swapped(0, 1)) != hil.offline()


def test_omitted_reset_is_noticed(hil: Hil) -> None:
    """A second stream without a reset begins with the first one's state."""
    if not hil.expected.plan.state_bytes:
        pytest.skip(f"{hil.case.model.name} keeps no state between chunks")
    assert hil.stream(reset=False) != hil.offline()


def test_flipped_weight_bit_is_noticed(hil: Hil) -> None:
    """One bit of one weight, in a file whose hash the device confirms."""
    assert hil.stream(artifact=hil.flipped_weight()) != hil.offline()


def test_stale_model_in_flash_is_refused(hil: Hil) -> None:
    """The device holds another build of the model than the one that was exported."""
    if not hil.is_in_flash:
        pytest.skip(f"{hil.case.model.name} is uploaded, not kept in flash")
    with pytest.raises(StaleArtifactError, match=hil.case.model.name):
        hil.stream(artifact=hil.flipped_weight(), upload=False)

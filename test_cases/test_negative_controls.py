"""Controls: each breaks one thing on purpose, and the harness must notice.

A control that finds nothing to break (a model without state has no order to lose) says so.
"""

import pytest

from espdl_hil.device.errors import StaleArtifactError
from espdl_hil.plugin import Hil

pytestmark = pytest.mark.negative


def test_chunks_out_of_order_are_noticed(hil: Hil) -> None:
    """Two chunks change places; the stream is no longer the offline model's."""
    order = [1, 0, *range(2, len(hil.chunks))]
    swapped = hil.stream([hil.chunks[index] for index in order])
    assert hil.judge_streaming(swapped).outcome == "failed"


def test_omitted_reset_is_noticed(hil: Hil) -> None:
    """A second stream without a reset begins with the first one's state."""
    hil.require_state()
    with hil.loaded() as model:
        hil.stream(model=model)
        assert hil.judge_streaming(hil.stream(model=model, reset=False)).outcome == "failed"


def test_flipped_weight_bit_is_noticed(hil: Hil) -> None:
    """One bit of one weight, in a file whose hash the device confirms."""
    with hil.uploaded(hil.with_flipped_weight()) as model:
        assert hil.judge_streaming(hil.stream(model=model)).outcome == "failed"


def test_stale_model_in_flash_is_refused(hil: Hil) -> None:
    """The device holds another build of the model than the one that was exported."""
    with pytest.raises(StaleArtifactError, match=hil.package_name):
        hil.load_expecting(hil.with_flipped_weight())

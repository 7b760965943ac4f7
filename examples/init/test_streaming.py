"""The proof of every model in models/, once for each target, width and chunk size."""

from espdl_hil import Hil


def test_streams(hil: Hil) -> None:
    """Every chunk on the device equals the whole model, element by element."""
    hil.verify()

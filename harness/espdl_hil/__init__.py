"""Hardware-in-the-loop harness for streaming neural networks on Espressif chips."""

from espdl_hil.model import StreamingModel

__all__ = ["StreamingModel"]

"""Hardware-in-the-loop harness for streaming neural networks on Espressif chips."""

from harness.model import StreamingModel

__all__ = ["StreamingModel"]

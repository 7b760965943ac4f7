"""Hardware-in-the-loop harness for streaming neural networks on Espressif chips."""

"""The device under test: its port, its flash, its boot and the session with its firmware."""

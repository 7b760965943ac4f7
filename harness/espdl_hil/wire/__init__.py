"""The wire protocol: bytes in, messages out. No I/O, no clock; see ``protocol.md``."""

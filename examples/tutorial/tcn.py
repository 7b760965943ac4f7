"""The tutorial's TCN under auto_streaming=True."""

from _zoo import auto

MODEL = auto("tcn")

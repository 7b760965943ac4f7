"""The tutorial's TestModel_2 under auto_streaming=True."""

from _zoo import auto

MODEL = auto("inverted_residual")

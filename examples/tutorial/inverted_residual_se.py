"""The tutorial's TestModel_0 under auto_streaming=True."""

from _zoo import auto

MODEL = auto("inverted_residual_se")

"""The tutorial's TestModel_1 under auto_streaming=True."""

from _zoo import auto

MODEL = auto("pointwise")

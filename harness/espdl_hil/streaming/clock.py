"""What a chunk is: which axes of which inputs are time, and how many frames come at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from espdl_hil.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from espdl_hil.streaming.graph import NeutralGraph


@dataclass(frozen=True)
class Clock:
    """What a chunk is.

    Attributes:
        frame_axes: Time axis of each graph input that has one, in the file's layout.
        chunk_frames: Frames of each of these inputs in one chunk.
        state: Recurrent state: graph input to the graph output that feeds it.
    """

    frame_axes: Mapping[str, int]
    chunk_frames: Mapping[str, int]
    state: Mapping[str, str]

    @staticmethod
    def of(
        frame_axes: Mapping[str, int],
        chunk_frames: Mapping[str, int] | int,
        state: Mapping[str, str] | None = None,
    ) -> Clock:
        """A clock whose inputs may all have chunks of one length."""
        if isinstance(chunk_frames, int):
            chunk_frames = dict.fromkeys(frame_axes, chunk_frames)
        return Clock(dict(frame_axes), dict(chunk_frames), dict(state or {}))

    @property
    def chunk(self) -> int:
        """Frames of the first input in one chunk."""
        return next(iter(self.chunk_frames.values()))

    def check(self, graph: NeutralGraph) -> None:
        """Raise ConfigError for names, axes and counts that do not fit a graph."""
        for kind, there, names in (
            ("input", graph.inputs, [*self.frame_axes, *self.state]),
            ("output", graph.outputs, list(self.state.values())),
        ):
            for name in names:
                if name not in there:
                    raise ConfigError(
                        f"the graph has no {kind} {name!r}; it has {', '.join(there)}"
                    )
        if not self.frame_axes:
            raise ConfigError("no input has a frame axis, so there is nothing to stream")
        for name, axis in self.frame_axes.items():
            shape = graph.shapes[name]
            if not 0 <= axis < len(shape):
                raise ConfigError(f"frame axis {axis} of input {name!r} is outside {shape}")
            chunk = self.chunk_frames.get(name, 0)
            if not 0 < chunk <= shape[axis]:
                raise ConfigError(
                    f"input {name!r}: a chunk of {chunk} frames does not fit {shape[axis]} frames"
                )

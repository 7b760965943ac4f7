"""Every rule that planner and lint can name, in one registry. Ids are stable."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from harness.errors import StreamingError


class Severity(Enum):
    """How a finding is to be taken."""

    ERROR = "error"  # the stream differs from the offline model, or does not load
    WARNING = "warning"  # it differs in frames that are predicted, or on other runtimes
    NOTE = "note"  # worth knowing; nothing differs


@dataclass(frozen=True)
class Rule:
    """One thing that can be wrong with a streaming model.

    Attributes:
        id: Stable; ``S1xx`` the model cannot stream, ``S2xx`` the export is wrong, ``S3xx``
            what to expect.
        severity: See ``Severity``.
        title: A few words.
        explanation: Why it breaks streaming.
        edit: What the model's author should change.
    """

    id: str
    severity: Severity
    title: str
    explanation: str
    edit: str


def refuse(rule: Rule, node: str, message: str) -> StreamingError:
    """Make the error for a model that cannot stream as written.

    Args:
        rule: What is broken.
        node: Name of the node at fault.
        message: Why, with the figures of this node.

    Returns:
        The error; its hint is the rule's edit.
    """
    return StreamingError(f"{rule.title}: {message}", rule=rule.id, node=node, hint=rule.edit)


_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE

REDUCTION = Rule(
    "S101",
    _E,
    "reduction over time",
    "A reduction over the frame axis needs frames that have not arrived yet.",
    "reduce over the channels only, or replace it by a causal average pool (AvgPool1d over a fixed "
    "window with left padding)",
)
NORMALIZATION = Rule(
    "S102",
    _E,
    "softmax or normalization over time",
    "Its denominator needs frames that have not arrived yet.",
    "normalize over the channel axis of each frame",
)
GLOBAL_POOL = Rule(
    "S103",
    _E,
    "global pooling over time",
    "A global pool needs frames that have not arrived yet; in a stream it would see one chunk.",
    "use a causal average pool over a fixed window, or keep the last frames with x[:, :, -n:]",
)
ATTENTION = Rule(
    "S104",
    _E,
    "matrix product over time",
    "A product of two tensors that both carry time (attention), or one that contracts the frame "
    "axis, mixes frames of the whole sequence.",
    "use a convolution or a recurrent layer for context in time",
)
NONCAUSAL = Rule(
    "S105",
    _E,
    "non-causal padding",
    "Padding after the last frame makes an output depend on frames that come later; the stream "
    "would need them before they arrive.",
    "pad on the left only: F.pad(x, (dilation * (kernel_size - 1), 0)) before a convolution "
    "without padding, or cut the surplus frames off the end",
)
RESIZE = Rule(
    "S106",
    _E,
    "resize in time",
    "Resize interpolates between frames across chunk borders.",
    "upsample with a ConvTranspose whose kernel equals its stride, or repeat frames outside",
)
PAD_MODE = Rule(
    "S107",
    _E,
    "padding in time that is not zero",
    "A streaming cache starts with zeros; reflected, repeated or constant frames before the first "
    "one cannot be reproduced.",
    "pad the frame axis with zeros",
)
FOLDED = Rule(
    "S108",
    _E,
    "time folded into another axis",
    "A reshape or flatten merges the frame axis with an axis that varies more slowly, so the "
    "frames of a chunk are not contiguous, or all frames feed one output.",
    "keep the last frames with x[:, :, -n:] before flattening, or transpose time to the front",
)
ABSOLUTE = Rule(
    "S109",
    _E,
    "absolute position in time",
    "The node picks or adds something at fixed frames of the offline sequence; a stream has no "
    "such positions.",
    "address frames from the end (x[:, :, -n:]), or drop the positional term",
)
ALONG_TIME = Rule(
    "S110",
    _E,
    "concat, split or scatter along time",
    "Joining or cutting tensors along the frame axis depends on the length of the sequence.",
    "work along the channel axis, or feed the history as frames of the input",
)
REVERSED = Rule(
    "S111",
    _E,
    "recurrence against time",
    "A reverse or bidirectional layer starts at the last frame.",
    "use a forward layer",
)
UNKNOWN = Rule(
    "S112",
    _E,
    "operator without streaming rules",
    "How this operator treats the frame axis is not known, so equality cannot be promised.",
    "replace it, or give your own passes in StreamingModel.streaming",
)
UNBOUNDED = Rule(
    "S113",
    _E,
    "cold frames enter a recurrence",
    "Frames that differ at the start of a stream enter a recurrent state and never leave it.",
    "remove the latency or the warm-up before the recurrent layer",
)
PHASE = Rule(
    "S120",
    _E,
    "stride phase",
    "The frames of a chunk are not a multiple of the total stride, so the phase slips from chunk "
    "to chunk.",
    "choose chunk_frames as a multiple of the total stride",
)
STATE_DROPPED = Rule(
    "S130",
    _E,
    "recurrent state dropped",
    "Each run starts from zero unless the state is a graph input fed from a graph output.",
    "take the initial state as an input of forward, return the final state, and name both in "
    'StreamingModel.state, such as {"h0": "hn"}',
)
STATE_EXPONENT = Rule(
    "S131",
    _E,
    "state exponents differ",
    "The state that goes out is fed back as it is; with another exponent it is scaled at each "
    "chunk.",
    "calibrate with non-zero initial states, so that input and output share their range",
)

RULES: dict[str, Rule] = {
    rule.id: rule
    for rule in (
        REDUCTION,
        NORMALIZATION,
        GLOBAL_POOL,
        ATTENTION,
        NONCAUSAL,
        RESIZE,
        PAD_MODE,
        FOLDED,
        ABSOLUTE,
        ALONG_TIME,
        REVERSED,
        UNKNOWN,
        UNBOUNDED,
        PHASE,
        STATE_DROPPED,
        STATE_EXPONENT,
    )
}

"""``docs/rules.md``, made from the registry: ``python -m espdl_hil.streaming.rules_doc``."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from espdl_hil.streaming.examples import EXAMPLES
from espdl_hil.streaming.findings import Severity
from espdl_hil.streaming.rules import RULES

if TYPE_CHECKING:
    from espdl_hil.streaming.findings import Rule

GROUPS = {
    "S1": "The model cannot stream as written",
    "S2": "The streaming file is not its offline model",
    "S3": "What to expect of a right conversion",
    "S4": "The network is not the trained one",
}
HEAD = f"""# Streaming rules

Made from `streaming/rules.py` by `python -m espdl_hil.streaming.rules_doc > docs/rules.md`
after each change. Ids are stable. A finding or a `StreamingError` names the rule and the node.

- `{Severity.ERROR.value}`: the stream differs from the offline model, or does not load.
- `{Severity.WARNING.value}`: it differs in frames that are predicted, or on other runtimes.
- `{Severity.NOTE.value}`: worth knowing; nothing differs.

An example is the body of `forward(x)`: layers first, then what is computed, then those arguments
of `StreamingModel` that are not `input_shape=(1, 4, 24), frame_axis=2, chunk_frames=(4,)`. A test
runs every one of them.
`espdl-hil lint --explain S105` prints one rule.
"""


def render() -> str:
    """Write all rules as Markdown."""
    parts = [HEAD]
    for prefix, title in GROUPS.items():
        parts.append(f"\n## {title}\n")
        for rule in RULES.values():
            if rule.id.startswith(prefix):
                edit = f"{rule.edit[0].upper()}{rule.edit[1:]}."
                parts.append(
                    f"\n### {rule.id} {rule.title} ({rule.severity.value})\n\n"
                    f"{rule.explanation}\n\n*Edit:* {edit}\n\n"
                )
                parts += [f"```python\n{text}\n```\n" for text in example_of(rule)]
    return "".join(parts)


def explain(rule: Rule) -> str:
    """Write one rule for a terminal."""
    lines = [f"{rule.id} {rule.title} ({rule.severity.value})", rule.explanation]
    lines.append(f"edit: {rule.edit}")
    lines += [textwrap.indent(text, "    ") for text in example_of(rule)]
    return "\n".join(lines)


def example_of(rule: Rule) -> list[str]:
    """A rule's example as code: what it is named for, and what passes after each edit."""
    example = EXAMPLES[rule.id]
    after = [f"# after\n{text}" for text in example.after]
    return [f"# before\n{example.before}", *after]


if __name__ == "__main__":
    print(render(), end="")

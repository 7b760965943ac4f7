"""``docs/rules.md``, made from the registry: ``python -m espdl_hil.streaming.rules_doc``."""

from __future__ import annotations

from espdl_hil.streaming.findings import Severity
from espdl_hil.streaming.rules import RULES

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
                    f"{rule.explanation}\n\n*Edit:* {edit}\n"
                )
    return "".join(parts)


if __name__ == "__main__":
    print(render(), end="")

"""The report as one page. Knows the JSON of the results and a template."""

from __future__ import annotations

from collections import Counter
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2

from espdl_hil.errors import printable
from espdl_hil.report.schema import CHECKS, OUTCOMES
from espdl_hil.report.table import notes, revision_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from espdl_hil.report.results import Results


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = resources.files("espdl_hil.report").joinpath("report.html.j2").read_text("utf-8")
    return environment.from_string(text)


def render_html(results: Results) -> str:
    """Render results as a page that needs no other file and no network.

    Args:
        results: What the run found; none of it is trusted to be free of markup.

    Returns:
        The page, UTF-8 text.
    """
    content = results.to_json()
    rows: list[dict[str, Any]] = content["rows"]
    for row, source in zip(rows, results.rows, strict=True):
        row["summary"] = source.reason
        row["elements"], row["differing"] = source.elements, source.differing
        row["per_chunk"] = _worst_chunks(row["details"]["per_chunk"])
    rows.sort(key=lambda row: row["outcome"] == "passed")  # what needs a reader comes first
    counts = Counter(row["outcome"] for row in rows)
    return _template().render(
        **content,
        check_names=CHECKS,
        revision=revision_text,
        totals={
            "outcomes": {outcome: counts[outcome] for outcome in OUTCOMES},
            "elements": sum(row.elements for row in results.rows),
            "differing": sum(row.differing for row in results.rows),
            "models": len({row["model"] for row in rows}),
            "targets": len({row["target"] for row in rows}),
        },
        choices={
            name: sorted({str(row[name]) for row in rows})
            for name in ("outcome", "target", "model", "bits")
        },
        notes=notes(results.rows),
    )


def _worst_chunks(per_chunk: Mapping[str, Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Each chunk as the check saw it in which it did worst."""
    return [
        max(chunks, key=lambda chunk: (OUTCOMES.index(chunk["outcome"]), chunk["differing"]))
        for chunks in zip(*per_chunk.values(), strict=False)
    ]

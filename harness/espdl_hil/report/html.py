"""The report as one page. Knows results, a template, and what the page's script reads."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections import Counter
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import markupsafe

from espdl_hil.compare import Outcome
from espdl_hil.errors import printable
from espdl_hil.report.matrix import LETTERS, RULE, by_cause, cause_of, sentence, weakest_figure
from espdl_hil.report.schema import OUTCOMES
from espdl_hil.report.table import notes, revision_text
from espdl_hil.streaming import RULES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from espdl_hil.report.results import Results
    from espdl_hil.report.row import Row

_BUNDLE = re.compile(r"(?:^|[\\/ ])(repro[\\/][^\\/ ]+\.zip)$")


def asset(name: str) -> str:
    """A file of the page's folder, as text."""
    return resources.files("espdl_hil.report").joinpath("page", name).read_text("utf-8")


@cache
def bokeh() -> str:
    """BokehJS with its interface for scripts, packed; from the package, which is not imported."""
    folder = Path(str(metadata.distribution("bokeh").locate_file("bokeh/server/static/js")))
    code = [(folder / f"{name}.min.js").read_text("utf-8") for name in ("bokeh", "bokeh-api")]
    return base64.b64encode(zlib.compress("\n".join(code).encode())).decode()


@cache
def template(name: str) -> jinja2.Template:
    """A page's template; whatever it is given is escaped, and free of control characters."""
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FunctionLoader(asset),
        finalize=lambda value: printable(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["asset"] = lambda name: markupsafe.Markup(asset(name))  # noqa: S704 - ours
    return environment.get_template(name)


def render_html(results: Results) -> str:
    """Render results as a page that needs no other file and no network.

    Args:
        results: What the run found; none of it is trusted to be free of markup.

    Returns:
        The page, UTF-8 text.
    """
    rows = results.rows
    counts = Counter(row.outcome for row in rows)
    return template("report.html.j2").render(
        results=results,
        sentence=sentence(rows),
        counts={outcome: counts[Outcome(outcome)] for outcome in OUTCOMES},
        elements=sum(row.elements for row in rows),
        differing=sum(row.differing for row in rows),
        models=len({row.model for row in rows}),
        targets=sorted({row.target for row in rows}),
        causes=by_cause(rows),
        columns=sorted({(row.target, row.bits) for row in rows}),
        matrix=_matrix(rows),
        choices=_choices(rows),
        notes=notes(rows),
        revision=revision_text,
        breakable=breakable,
        letters={str(outcome): letter for outcome, letter in LETTERS.items()},
        rooms=[room(row) for row in rows],
        bokeh=bokeh() if any(row.details.pictures for row in rows) else "",
        timed=any(row.latency_us for row in rows),
        judged=any(row.metric for row in rows),
    )


def _matrix(rows: Sequence[Row]) -> dict[str, dict[tuple[str, int], list[dict[str, Any]]]]:
    """Cells by model, then by target and width; one a chunk size, in order of size."""
    found: dict[str, dict[tuple[str, int], list[dict[str, Any]]]] = {}
    order = {id(row): number for number, row in enumerate(rows)}
    for row in sorted(rows, key=lambda row: (row.model, row.chunk_frames or 0)):
        cell = {
            "row": row,
            "number": order[id(row)],
            "letter": LETTERS[row.outcome],
            "figure": weakest_figure(row),
            "cause": cause_of(row),
        }
        found.setdefault(row.model, {}).setdefault((row.target, row.bits), []).append(cell)
    return found


def _choices(rows: Sequence[Row]) -> dict[str, list[str]]:
    """What the page's filters offer; one with a single value is left out."""
    choices = {
        "outcome": [outcome for outcome in OUTCOMES if any(row.outcome == outcome for row in rows)],
        "cause": sorted({cause for row in rows if (cause := cause_of(row))}),
        "target": sorted({row.target for row in rows}),
        "model": sorted({row.model for row in rows}),
        "bits": [str(bits) for bits in sorted({row.bits for row in rows})],
    }
    least = {"cause": 1}
    return {name: found for name, found in choices.items() if len(found) >= least.get(name, 2)}


def breakable(name: str) -> markupsafe.Markup:
    """A name that may go on in the next line behind an underscore, a dash or a dot."""
    parts = re.split(r"(?<=[_.-])", printable(name))
    return markupsafe.Markup("<wbr>").join(parts)


def room(row: Row) -> str:
    """All that the page shows of a row, packed.

    The page expands it when the row is opened, so that a page of thousands opens at once.
    """
    content = row.to_json()
    del content["details"]["per_chunk"]  # the heat map says it
    content |= {
        "reason": row.reason,
        "cause": cause_of(row),
        "elements": row.elements,
        "differing": row.differing,
        "bundles": [
            match.group(1).replace("\\", "/")
            for command in row.details.replay
            if (match := _BUNDLE.search(command))
        ],
        "rules": [
            {"id": rule.id, "title": rule.title, "text": rule.explanation, "edit": rule.edit}
            for name in dict.fromkeys(RULE.findall(f"{row.reason} {row.details.error}"))
            if (rule := RULES.get(name))
        ],
    }
    return packed(content)


def packed(content: Any) -> str:
    """JSON in zlib in base64, one line, without control characters in any text."""
    text = json.dumps(_printable(content), separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _printable(value: Any) -> Any:
    """JSON without control characters in any text."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(name): _printable(item) for name, item in value.items()}
    return list(map(_printable, value)) if isinstance(value, list | tuple) else value

"""The pages beside the report: runs compared with each other, a model's rows over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from espdl_hil.compare import Outcome
from espdl_hil.report.changes import changes, describe
from espdl_hil.report.html import bokeh, breakable, packed, template
from espdl_hil.report.matrix import LETTERS, weakest_figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from espdl_hil.report.results import Results
    from espdl_hil.report.trends import Trend


def render_comparison(runs: Mapping[str, Results]) -> str:
    """Render runs side by side, and what differs from the first, as one page.

    Args:
        runs: By name; at least two.

    Returns:
        The page, UTF-8 text.
    """
    (base, first), *others = runs.items()
    found = {name: changes(first, results) for name, results in others}
    changed = {name: {change.row for change in of if change.row} for name, of in found.items()}
    ids = dict.fromkeys(row.id for results in runs.values() for row in results.rows)
    rows = {name: {row.id: row for row in results.rows} for name, results in runs.items()}
    cells = {
        row: [
            {
                "row": rows[name].get(row),
                "letter": LETTERS[of.outcome] if (of := rows[name].get(row)) else "",
                "figure": weakest_figure(of) if of else "none",
                "changed": row in changed.get(name, ()),
            }
            for name in runs
        ]
        for row in sorted(ids, key=lambda row: not any(row in of for of in changed.values()))
    }
    return template("compare.html.j2").render(
        runs=runs,
        base=base,
        changes=found,
        cells=cells,
        sentences={name: describe(of) for name, of in found.items()},
        worse=any(change.regression for of in found.values() for change in of),
        breakable=breakable,
    )


def render_history(model: str, found: Sequence[Trend]) -> str:
    """Render a model's rows over time as one page.

    Args:
        model: Its name.
        found: A trend a row.

    Returns:
        The page, UTF-8 text.
    """
    series = [_series(trend) for trend in found]
    return template("history.html.j2").render(
        model=model,
        trends=list(zip(found, series, strict=True)),
        series=packed(series),
        bokeh=bokeh(),
        well=all(trend.outcomes[-1] == Outcome.PASSED for trend in found),
        runs=len({run for trend in found for run in trend.runs}),
    )


def _series(trend: Trend) -> dict[str, Any]:
    """What the charts of a trend draw; a figure that no run has is left out."""
    figures: dict[str, Sequence[float | None]]
    figures = {"SQNR, dB": trend.sqnr_db, "µs a chunk": trend.latency_us}
    for name, sizes in trend.memory.items():
        figures[f"{name}, KiB"] = [None if size is None else size / 1024 for size in sizes]
    return {
        "runs": trend.runs,
        "bad": [outcome != Outcome.PASSED for outcome in trend.outcomes],
        "figures": {
            name: values
            for name, values in figures.items()
            if any(value is not None for value in values)
        },
    }

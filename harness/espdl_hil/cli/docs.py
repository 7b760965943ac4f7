"""``espdl-hil docs``: the pages and rules, as they are in this very version."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from espdl_hil.cli.files import shipped
from espdl_hil.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe ``docs`` and what it takes."""
    parser.description = (
        "Print a page or a rule of this version, without a network. On a terminal "
        "Markdown is laid out; into a pipe it goes as it is."
    )
    parser.add_argument(
        "page",
        nargs="?",
        default="index",
        metavar="PAGE|RULE",
        help="such as models, faq, README or S105 (default: what there is to read)",
    )


def run(options: argparse.Namespace) -> int:
    """Print what was asked for.

    Raises:
        ConfigError: there is no such page or rule.
    """
    from rich.console import Console
    from rich.markdown import Markdown

    text = read(options.page)
    console = Console()
    if console.is_terminal:
        console.print(Markdown(text))
    else:
        sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
    return 0


def read(name: str) -> str:
    """Return a page as Markdown, or a rule as text.

    Args:
        name: A page, with or without ``.md`` and ``docs/``, or the id of a rule.

    Raises:
        ConfigError: there is neither.
    """
    from espdl_hil.streaming import RULES
    from espdl_hil.streaming.rules_doc import explain

    if rule := RULES.get(name.upper()):
        return explain(rule)
    found = pages()
    wanted = name.removeprefix("docs/").removesuffix(".md").lower()
    if wanted not in found:
        raise ConfigError(
            f"there is no page or rule {name!r}",
            hint=f"pages: {', '.join(sorted(found))}; rules: espdl-hil docs rules",
        )
    return found[wanted].read_text(encoding="utf-8")


def pages() -> dict[str, Path]:
    """The pages by name: those of ``docs/``, its folders included, and the README."""
    folder = shipped("_docs", "docs")
    found = {
        str(path.relative_to(folder).with_suffix("")).lower(): path for path in folder.rglob("*.md")
    }
    if "readme" not in found:  # a checkout
        found["readme"] = folder.parent / "README.md"
    return found

"""``docs/api.md``, made from docstrings: ``python tests/make_api_page.py > docs/api.md``."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

import espdl_hil
from espdl_hil.model import StreamingModel
from espdl_hil.plugin import hookspec
from espdl_hil.proof.accuracy import Kept
from espdl_hil.proof.run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = """# API

Made from docstrings by `python tests/make_api_page.py > docs/api.md`; a test says when it is stale.
`from espdl_hil import StreamingModel, verify` is all that a model file or a script needs; tests get
a `Hil` as the fixture `hil`. Whatever is not on this page may change without notice.
"""
SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields|Example):")
MAX_LINE = 90
ITEM = re.compile(r"    (\*{0,2}\w+): (.*)")


def markdown(docstring: str) -> Iterator[str]:
    """A Google-style docstring as lines of Markdown: sections bold, their entries a list."""
    section = ""
    for line in docstring.splitlines():
        if found := SECTION.fullmatch(line):
            section = found[1]
            yield from ("", f"**{section}**", "")
        elif section and (entry := ITEM.fullmatch(line)):
            yield f"- `{entry[1]}`: {entry[2]}"
        elif section and line.startswith("        "):
            yield f"  {line.strip()}"
        elif section and line.startswith("    "):
            yield line.strip()
        else:
            section = section if not line else ""
            yield line


def signature(function: Any) -> str:
    """What is called, a parameter a line where it does not fit into one."""
    found = inspect.signature(function)
    parts = list(_parts(found))
    returns = found.return_annotation
    tail = "" if returns in (inspect.Signature.empty, "None", None) else f" -> {returns}"
    text = f"({', '.join(parts)}){tail}"
    if len(text) <= MAX_LINE:
        return text
    return "\n".join(["(", *(f"    {part}," for part in parts), f"){tail}"])


def _parts(found: inspect.Signature) -> Iterator[str]:
    """Each parameter as its author wrote it; ``self`` is left out."""
    keyword_only = False
    for name, parameter in found.parameters.items():
        if name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            yield "*"
        default = parameter.default
        shown = "{}" if "factory" in repr(default) else repr(default)
        yield f"{name}: {parameter.annotation}" + (
            "" if default is parameter.empty else f" = {shown}"
        )


def entry(title: str, code: str, thing: Any) -> Iterator[str]:
    """One heading with what is called and its docstring."""
    yield from ("", title, "", "```python", code, "```", "")
    yield from markdown(inspect.getdoc(thing) or "")


def members(owner: type, depth: str) -> Iterator[str]:
    """The public methods and properties of a class, in the order of its file."""
    for name, member in vars(owner).items():
        if name.startswith("_") or not inspect.getdoc(member):
            continue
        title = f"{depth} `{owner.__name__}.{name}`"
        if isinstance(member, property):
            returns = inspect.signature(member.fget).return_annotation
            yield from entry(title, f"{name}: {returns}", member)
        elif inspect.isfunction(member):
            yield from entry(title, f"{name}{signature(member)}", member)


def render() -> str:
    """The whole page."""
    lines = [HEAD.rstrip()]
    made = (StreamingModel, espdl_hil.Quantization)  # others are given
    for kind in (*made, espdl_hil.Hil, Run, Kept, espdl_hil.Verification):
        call = signature(kind) if kind in made else ""
        lines += entry(f"## `{kind.__name__}`", f"{kind.__name__}{call}", kind)
        lines += members(kind, "###")
    lines += entry("## `verify`", f"verify{signature(espdl_hil.verify)}", espdl_hil.verify)
    lines += ["", "## Hooks of the pytest plugin", "", "Write them in a `conftest.py` or a plugin."]
    for name, hook in vars(hookspec).items():
        if name.startswith("pytest_espdl_hil_"):
            lines += entry(f"### `{name}`", f"def {name}{signature(hook)}:", hook)
    text = "\n".join(line.rstrip() for line in lines) + "\n"
    text = re.sub(r"(?<!`)``(?!`)", "`", text)  # reST's literals
    return re.sub(r"\n{3,}", "\n\n", text)


if __name__ == "__main__":
    print(render(), end="")

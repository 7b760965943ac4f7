"""pytest's root folder, found again once every option is known.

pytest looks for its root and its configuration file before any plugin has named its options. At
that moment the second word of ``--port /dev/ttyUSB0`` looks like a test path, and pytest takes
``/dev`` as the root: the project's pytest.ini, with its ``testpaths`` and markers, would be
ignored. The same holds for every option with a path, ours and pytest-embedded's.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.hookimpl(tryfirst=True)  # before anything acts on the root
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> None:
    """Let pytest look for root and configuration again, where it took a value for a path.

    Raises:
        pytest.UsageError: the configuration file asks for what cannot be.
    """
    given = early_config.invocation_params.args
    known = early_config.known_args_namespace
    if {word for word in given if not word.startswith("-")} <= set(known.file_or_dir):
        return  # every such word is a path, nothing was misread
    again = _RootStep(early_config)
    words = list(given)
    try:
        again.parse(words)
    except _DoneError:
        if (again.rootpath, again.inipath) != (early_config.rootpath, early_config.inipath):
            args[:] = words
            _adopt(early_config, again, parser, args)


class _DoneError(Exception):
    """Root and configuration are found."""


class _RootStep(pytest.Config):  # type: ignore[misc]  # final, and of no other use here
    """The beginning of ``Config.parse``: root, configuration file, and its ``addopts``.

    Args:
        config: Gives the parser, which knows all options now; it is left as it is.
    """

    def __init__(self, config: pytest.Config) -> None:
        vars(self).update(vars(config))
        self._inicache: dict[str, Any] = {}
        quiet = SimpleNamespace(call_historic=lambda kwargs: None)  # noqa: ARG005 - pluggy's name
        # hooks were added the first time
        self.hook = SimpleNamespace(pytest_addhooks=quiet)  # type: ignore[assignment]

    def _checkversion(self) -> None:
        raise _DoneError  # the first thing that parse does with what it has found


def _adopt(config: pytest.Config, found: _RootStep, parser: pytest.Parser, args: list[str]) -> None:
    """Make *config* what it would be, had pytest found root and configuration at once."""
    if has_python_path := hasattr(config, "_unconfigure_python_path"):  # from pytest 8.4 on
        config._unconfigure_python_path()  # noqa: SLF001
    vars(config).update({k: v for k, v in vars(found).items() if k != "hook"})
    config._checkversion()  # noqa: SLF001
    if has_python_path:
        config._configure_python_path()  # noqa: SLF001
    config.pluginmanager.consider_preparse(args, exclude_only=False)
    config.pluginmanager.rewrite_hook.fnpats = config.getini("python_files")  # type: ignore[attr-defined]
    known = parser.parse_known_args(args, namespace=copy.copy(config.option))
    if known.confcutdir is None:
        known.confcutdir = str(config.inipath.parent if config.inipath else config.rootpath)
    config.known_args_namespace = known
    config._validate_plugins()  # noqa: SLF001

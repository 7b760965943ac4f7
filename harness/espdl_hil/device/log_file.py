"""A log that outlives its disk: what cannot be written is lost and said, and testing goes on."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from espdl_hil.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Buffer


class LogFile(io.FileIO):
    """A log, appended to without a buffer.

    Args:
        path: Its folder is made when it is absent.

    Attributes:
        failure: Why the log ends early; empty when it does not.

    Raises:
        ConfigError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.failure = ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            super().__init__(path, "ab")
        except OSError as error:
            raise ConfigError(
                f"the log {path} cannot be written: {error.strerror or error}",
                hint="name another folder with --hil-report DIR",
            ) from None

    def write(self, data: Buffer, /) -> int:
        """Append; after the first failure nothing more."""
        if not self.failure:
            try:
                return super().write(data)
            except OSError as error:
                self.failure = f"the log {self.name} cannot be written: {error.strerror or error}"
        return 0

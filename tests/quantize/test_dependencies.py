"""Which files a model file reads: heard by an audit hook, so in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import json, sys
from pathlib import Path
from espdl_hil.quantize.dependencies import Dependencies

folder = Path(sys.argv[1])
sys.path.insert(0, str(folder))
heard = Dependencies(folder / "model.py")
(folder / "before.txt").read_text()
with heard.recording():
    import helper
    import json.tool
    (folder / "model.py").read_text()
    (folder / "data" / "weights.bin").read_bytes()
    (folder.parent / "outside.txt").read_text()
    (folder / "written.txt").write_text("")
(folder / "after.txt").read_text()
print(json.dumps(heard.hashes(folder)))
"""


def heard(folder: Path) -> dict[str, str]:
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_what_is_imported_and_read_inside_is_hashed(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    (folder / "data").mkdir(parents=True)
    (tmp_path / "outside.txt").write_text("outside")
    for name in ("model.py", "helper.py", "before.txt", "after.txt", "data/weights.bin"):
        (folder / name).write_text(f"# {name}")
    first = heard(folder)
    assert set(first) == {"helper.py", "data/weights.bin", "../outside.txt"}
    assert heard(folder) == first  # the second run imports the compiled helper
    (folder / "helper.py").write_text("# another helper")
    assert heard(folder)["helper.py"] != first["helper.py"]

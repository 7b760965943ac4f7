"""The store: atomic, verified, and honest about what it throws away."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import Timeout

from espdl_hil.errors import ConfigError
from espdl_hil.model import Quantization
from espdl_hil.quantize import Recipe, Store
from espdl_hil.quantize.artifacts import LOG

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    source = tmp_path / "models" / "m.py"
    source.parent.mkdir()
    source.write_text("")
    return Recipe(
        source, "00", "m", "esp32s3", 8, (3,), "plan", 0, Quantization(), (("esp-ppq", "1"),)
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def publish(store: Store, recipe: Recipe, dependencies: dict[str, str] | None = None) -> Path:
    with store.lock(recipe):
        work = store.begin(recipe)
        (work / "offline.espdl").write_bytes(b"model")
        (work / "meta.json").write_text("{}")
        return store.publish(recipe, dependencies or {})


def test_what_was_published_is_found_by_another_store(store: Store, recipe: Recipe) -> None:
    assert store.get(recipe) is None
    directory = publish(store, recipe)
    found = Store(store.root).get(recipe)
    assert found == directory
    assert (found / "offline.espdl").read_bytes() == b"model"


def test_nothing_is_found_before_it_is_whole(store: Store, recipe: Recipe) -> None:
    work = store.begin(recipe)
    (work / "offline.espdl").write_bytes(b"half")
    assert store.get(recipe) is None
    assert list(store.begin(recipe).iterdir()) == []  # what a killed process left is gone


def flip_a_bit(directory: Path) -> None:
    path = directory / "offline.espdl"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


def edit_manifest(text: str) -> Callable[[Path], object]:
    return lambda directory: (directory / "manifest.json").write_text(text)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip_a_bit, "offline.espdl does not have the hash that was stored"),
        (lambda d: (d / "offline.espdl").write_bytes(b""), "offline.espdl does not have the hash"),
        (lambda d: (d / "offline.espdl").unlink(), "offline.espdl is missing"),
        (lambda d: (d / "manifest.json").unlink(), "unreadable (FileNotFoundError)"),
        (edit_manifest('{"schema": 1, "files": {'), "unreadable (JSONDecodeError)"),
        (edit_manifest("[]"), "unreadable (TypeError)"),
        (edit_manifest("{}"), "unreadable (KeyError)"),
        (edit_manifest('{"schema": 0}'), "its schema is 0, expected 1"),
        (edit_manifest('{"schema": 1, "files": {}, "dependencies": 3}'), "(AttributeError)"),
    ],
)
def test_a_damaged_entry_is_discarded_said_and_replaced(
    store: Store, recipe: Recipe, damage: Callable[[Path], object], said: str
) -> None:
    directory = publish(store, recipe)
    damage(directory)
    assert store.get(recipe) is None
    assert store.get(recipe) is None
    (message,) = store.discarded  # said once
    assert message.startswith("stored artifact of m int8 esp32s3 discarded and made anew: ")
    assert said in message
    assert publish(store, recipe) == directory
    assert store.get(recipe) is not None
    assert len(store.discarded) == 1


def test_an_intact_entry_is_not_reported(store: Store, recipe: Recipe) -> None:
    publish(store, recipe)
    assert store.get(recipe) is not None
    assert store.discarded == []


def test_an_entry_counts_only_while_the_files_that_it_read_are_the_same(
    store: Store, recipe: Recipe
) -> None:
    helper = recipe.source.parent / "_blocks.py"
    digest = {text: _write(helper, text) for text in ("one", "two")}
    first = publish(store, recipe, {"_blocks.py": digest["one"]})
    assert store.get(recipe) is None  # the file says two
    second = publish(store, recipe, {"_blocks.py": digest["two"]})
    assert first != second
    for text, directory in (("one", first), ("two", second)):
        _write(helper, text)
        found = store.get(recipe)
        assert found == directory
    helper.unlink()
    assert store.get(recipe) is None
    assert store.discarded == []  # stale is not damaged


def _write(path: Path, text: str) -> str:
    from espdl_hil.quantize.recipe import hash_file

    path.write_text(text)
    return hash_file(path)


def test_one_holder_of_a_lock_at_a_time(store: Store, recipe: Recipe) -> None:
    with store.lock(recipe), pytest.raises(Timeout):
        Store(store.root).lock(recipe).acquire(blocking=False)
    Store(store.root).lock(recipe).acquire(blocking=False).lock.release()


def test_a_failed_attempt_keeps_its_log_until_one_succeeds(store: Store, recipe: Recipe) -> None:
    (store.begin(recipe) / LOG).write_text("what went wrong")
    kept = store.fail(recipe)
    assert kept is not None
    assert kept.read_text() == "what went wrong"
    assert list((store.root / "work").iterdir()) == []
    publish(store, recipe)
    assert not kept.exists()


def test_a_failure_without_a_log_keeps_nothing(store: Store, recipe: Recipe) -> None:
    store.begin(recipe)
    assert store.fail(recipe) is None


def test_what_a_killed_run_was_making_is_pruned_and_nothing_of_a_living_one(
    store: Store, recipe: Recipe
) -> None:
    with store.lock(recipe):
        work = store.begin(recipe)
        assert Store(store.root).prune() == 0
        assert work.exists()
    Store(store.root).prune()
    assert not work.exists()


def test_only_what_nobody_asked_for_is_pruned(store: Store, recipe: Recipe) -> None:
    directory = publish(store, recipe)
    old = time.time() - 40 * 86400
    os.utime(directory / "manifest.json", (old, old))
    assert store.get(recipe) is not None  # asking makes it young again
    assert store.prune() == 0
    os.utime(directory / "manifest.json", (old, old))
    assert store.prune() == 1
    assert store.get(recipe) is None
    assert store.discarded == []


def test_a_store_that_cannot_be_written_is_the_users_to_move(
    tmp_path: Path, recipe: Recipe
) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "store")
    assert store.get(recipe) is None
    for write in (store.lock, store.begin):
        with pytest.raises(ConfigError) as raised:
            write(recipe)
        assert str(raised.value) == (
            f"the artifact store {store.root} cannot be written: Not a directory\n"
            "  hint: name another folder with --hil-store DIR"
        )


def test_the_manifest_names_what_it_is_made_of_and_the_files(store: Store, recipe: Recipe) -> None:
    manifest = json.loads((publish(store, recipe) / "manifest.json").read_text())
    assert manifest["made_of"] == recipe.to_json()
    assert sorted(manifest["files"]) == ["meta.json", "offline.espdl"]


def test_the_default_store_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/nowhere")
    assert Store().root == Path("/nowhere/espdl-hil/artifacts")

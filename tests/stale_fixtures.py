"""What the tests of staleness share: models that a test may change, and what is behind as the command line lists it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from conftest import Fairboard

from warehouse import engine, versions

Change = Callable[[str, str, str], None]


@pytest.fixture
def change_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Change]:
    """A function that replaces text in a model, by its name, for the rest of the test."""
    folder = shutil.copytree(engine.MODELS, tmp_path / "models")

    def change(name: str, old: str, new: str) -> None:
        path = folder / f"{name}.sql"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        for module in (engine, versions):
            monkeypatch.setattr(module, "MODELS", folder)
        _forget()

    yield change
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    engine.model.cache_clear()
    versions.code_of.cache_clear()


def behind(fairboard: Fairboard) -> dict[str, list[tuple[str, str, int, str]]]:
    """By table: the first and last day, the partitions and the reason of each line of `fairboard stale`."""
    found: dict[str, list[tuple[str, str, int, str]]] = {}
    for line in msgspec.json.decode(fairboard("stale", "--json").stdout):
        found.setdefault(line["table"], []).append((line["first"], line["last"], line["partitions"], line["why"]))
    return found

"""What docs/lake.md shows to readers from outside: each block gives the board that `fairboard sql` gives."""

import re

import pytest
from conftest import REPO, land_events, progression
from spark_fixtures import needs_spark

from tests.lake_fixtures import ask, fold_all, game
from warehouse.settings import Settings

LIBRARIES = ("polars", "pandas", "pyarrow", "duckdb", "pyspark")
BLOCKS = re.findall(r"```python\n(.*?)```", (REPO / "docs" / "lake.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A lake in which each table has been written twice: superseded files lie beside those that count."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("outside") / "data", _env_file=None)
    land_events(settings, game())
    fold_all(settings)
    land_events(settings, [progression("späte", "2024-05-02", 700)], "late")
    fold_all(settings)
    return settings


def test_there_are_blocks_for_each_library() -> None:
    assert all(library in block for library, block in zip(LIBRARIES, BLOCKS, strict=True))


@pytest.mark.parametrize("block", BLOCKS, ids=LIBRARIES)
def test_a_reader_from_outside_sees_the_board(block: str, lake: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    if "pyspark" in block:
        needs_spark()
    monkeypatch.chdir(lake.data_dir.parent)
    names: dict[str, object] = {}
    exec(block, names)
    expected = ask(lake, "SELECT rank, player_id, xp FROM leaderboards WHERE window_kind = 'seasonal' ORDER BY rank")
    assert names["board"] == expected
    assert any(player == "späte" for _, player, _ in expected)
    assert len(list((lake.lake_dir / "leaderboards").rglob("*.parquet"))) > len(expected)

"""How `tests/data/lake-format-1.tar.gz` was made: by the code before the lake's tables were Delta tables (commit e1b8427).

    git worktree add ../before e1b8427
    PYTHONPATH=../before python tests/make_old_lake.py tests/data/lake-format-1.tar.gz

It holds `data/` (a deployment), and what that code answered: `before.json` as it stands, `after.json` when its days were
computed once more. In it: an import, sealed segments that were compacted, one that came late, a file that nobody recorded, a
copy, a conflict, refused lines, letters that were kept when a player was forgotten, boards of two revisions.
"""

import json
import os
import sys
import tarfile
import tempfile
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

folder = Path(tempfile.mkdtemp())
os.environ["FAIRBOARD_DATA_DIR"] = str(folder / "data")

from pipelines.cli import main  # noqa: E402 - the folder is in the environment before it is read
from warehouse.calendar import Days  # noqa: E402
from warehouse.embedded_redis import EmbeddedRedis  # noqa: E402
from warehouse.engine import DuckDBEngine  # noqa: E402
from warehouse.event_rows import EventRows  # noqa: E402
from warehouse.events import decode_any  # noqa: E402
from warehouse.folds import FOLDS, fold  # noqa: E402
from warehouse.lake import Lake  # noqa: E402
from warehouse.settings import Settings  # noqa: E402
from warehouse.tables import EVENTS, REJECTS, TABLES  # noqa: E402

FIRST, LAST = "2024-04-28", "2024-05-02"
settings = Settings(data_dir=folder / "data", _env_file=None)


def event(player: str, day: str, xp: int, event_id: str, hour: int = 12) -> dict[str, Any]:
    ts = int(datetime.fromisoformat(f"{day}T{hour:02}:00:00+00:00").timestamp())
    return {
        "type": "progression",
        "playerId": player,
        "ts": ts,
        "eventId": event_id,
        "payload": {"deltaXp": xp, "activity": "quest"},
    }


def run(*arguments: str) -> None:
    with suppress(SystemExit):
        main(list(arguments))


def sealed(name: str, events: list[dict[str, Any]]) -> None:
    rows = EventRows()
    for one in events:
        rows.append(decode_any(msgspec.json.encode(one)), one["eventId"], one["ts"] * 1000 + len(name), "game")
    for day, part in rows.by_day(settings.zone):
        Lake(settings.lake_dir).write(EVENTS, part, {"event_date": day}, f"{name}.parquet")


def answers() -> dict[str, list[str]]:
    with DuckDBEngine(settings) as engine:
        engine.bind_all()
        return {name: sorted(map(repr, engine.connection.sql(f"FROM {name}").fetchall())) for name in TABLES}


days = ["2024-04-29", "2024-04-30", "2024-05-01", "2024-05-02"]
game = [event(f"p{n % 7}", days[n % 4], n, f"e{n}", n % 24) for n in range(80)]
history = folder / "history.ndjson"
bad = [{"type": "progression", "playerId": player, "ts": 1, "payload": {}} for player in ("zoe", "p1")]
lines = [*game[:30], event("zoe", days[0], 5, "z1"), event("p8", FIRST, 4, "i1"), *bad]
history.write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
with EmbeddedRedis(settings):
    run("import", str(history))
    sealed("0a1", game[30:50])
    sealed("0a2", [*game[45:80], game[0], event("p1", days[1], 10**6, "e1")])
    refusal = {
        "received_ms": 1_714_400_000_000, "key_id": "game", "request_id": "r", "position": 0, "field": "ts",
        "reason": "required, and missing", "event_id": None, "body": '{"playerId":"p3"}',
    }  # fmt: skip
    refused = pa.Table.from_pylist([refusal], schema=REJECTS.file_schema)
    Lake(settings.lake_dir).write(REJECTS, refused, {"event_date": date.fromisoformat(FIRST)}, "0a2.parquet")
    run("materialize", "--from", FIRST, "--to", LAST)
    run("publish", "--from", FIRST, "--to", LAST)
    sealed("0a3", [event("p2", days[0], 900, "late1"), event("p9", LAST, 30, "late2")])
    run("materialize", "--from", FIRST, "--to", LAST)
    run("publish", "--from", FIRST, "--to", LAST)
    run("forget", "zoe", "--yes")
sealed("0a4", [event("p5", days[1], 70, "late3"), game[2]])
by_hand = settings.lake_dir / "events" / f"event_date={LAST}" / "by-hand.parquet"
sealed("by-hand", [event("p6", LAST, 11, "by-hand")])
(settings.lake_dir / "_manifest" / by_hand.relative_to(settings.lake_dir)).with_name("by-hand.parquet.json").unlink()
(folder / "before.json").write_text(json.dumps(answers()))
with tarfile.open(sys.argv[1], "w:gz") as archive:
    for name in ("lake", "fairboard.sqlite"):
        archive.add(settings.data_dir / name, f"data/{name}")
    archive.add(folder / "before.json", "before.json")
    with DuckDBEngine(settings) as engine:
        folded = [fold(engine, name, Days.parse(FIRST, LAST)) for name in FOLDS]
    (folder / "after.json").write_text(json.dumps(answers() | {"details": folded[0].details}))
    archive.add(folder / "after.json", "after.json")

"""History comes in whole, once, and whatever a file holds is a sentence and never a traceback."""

import gzip
import hashlib
import os
import pty
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import msgspec
import polars as pl
import pytest
import zstandard
from conftest import Fairboard, encode, progression
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipelines.cli import main
from tests.lake_fixtures import paths_of
from warehouse.fairness.rules import RULES
from warehouse.settings import Settings
from warehouse.tables import EVENTS, REJECTS

MARK = b"\xef\xbb\xbf"
NAMELESS = [encode(progression("ann", "2026-05-01", 10, "12:00:00")), encode(progression("bob", "2026-05-02", 20, "12:00:00"))]
UNKNOWN = b'{"type":"progression","playerId":"ann","ts":1777636800,"payload":{"deltaXp":1,"activity":"x"},"more":%s}'


def written(path: Path, *lines: bytes) -> Path:
    content = b"\n".join(lines) + b"\n"
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def landed(settings: Settings) -> pl.DataFrame:
    return pl.read_parquet(paths_of(settings, EVENTS))


def rejected(settings: Settings) -> pl.DataFrame:
    return pl.read_parquet(paths_of(settings, REJECTS)).sort("position")


def test_only_the_lateness_is_waived_for_history(fairboard: Fairboard, tmp_path: Path, settings: Settings) -> None:
    now = int(time.time())
    times = {"old": 1_000_000_000, "soon": now + 60, "later": now + 3600, "far": 17_776_368_000, "ms": now * 1000}
    events = [progression(name, "2026-05-01", 1) | {"ts": ts} for name, ts in times.items()]
    done = fairboard("import", str(written(tmp_path / "a.ndjson", *map(encode, events))), status=1)
    assert sorted(landed(settings)["player_id"]) == ["old", "soon"]
    assert rejected(settings)["position"].to_list() == [3, 4, 5]
    assert done.stderr.count("more than 5 minutes ahead") == 2


@pytest.mark.parametrize("name", ["a.ndjson", "a.ndjson.gz"])
def test_a_mark_at_the_start_is_passed_over(fairboard: Fairboard, tmp_path: Path, settings: Settings, name: str) -> None:
    fairboard("import", str(written(tmp_path / name, MARK + NAMELESS[0], NAMELESS[1])))
    assert landed(settings).height == 2


def test_a_file_without_ids_counts_once_plain_and_packed(fairboard: Fairboard, tmp_path: Path, settings: Settings) -> None:
    plain, packed = written(tmp_path / "a.ndjson", *NAMELESS), written(tmp_path / "b.gz", *NAMELESS)
    fairboard("import", str(plain))
    digest = hashlib.sha256(plain.read_bytes()).hexdigest()[:16]
    named = {f"import-{digest}-1", f"import-{digest}-2"}  # as they have always been named
    assert set(landed(settings)["event_id"]) == named
    fairboard("import", str(packed))
    assert sorted(landed(settings)["event_id"]) == sorted(named)


PACKED = gzip.compress(b"\n".join(NAMELESS) * 50, mtime=0)
PARQUET = BytesIO()
pl.DataFrame({"player_id": ["ann"], "type": ["progression"], "ts": [1], "delta_xp": [1], "activity": ["x"]}).write_parquet(
    PARQUET
)


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x5A]) + content[at + 1 :]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (PACKED[:-12], "is damaged: "),
        (PACKED[:11], "is damaged: "),
        (flipped(PACKED, len(PACKED) - 6), "is damaged: CRC check failed"),
        (flipped(PACKED, 12), "is damaged: "),
        (PACKED + b"and more", "is damaged: "),
        (
            zstandard.compress(NAMELESS[0]),
            "is packed by zstd; what can be imported is NDJSON in UTF-8, gzip of it, and Parquet",
        ),
        (gzip.compress(PACKED), "is gzip inside gzip"),
        (gzip.compress(PARQUET.getvalue()), "is Parquet inside gzip: unpack it first"),
        (NAMELESS[0].decode().encode("utf-16"), "is text in UTF-16"),
        (PARQUET.getvalue()[:-20], "is damaged: "),
    ],
    ids=["cut", "cut in its head", "sum", "block", "behind", "zstd", "gzip twice", "packed Parquet", "UTF-16", "cut Parquet"],
)
def test_a_file_that_cannot_be_read_is_named_and_nothing_of_it_imported(
    fairboard: Fairboard, tmp_path: Path, settings: Settings, content: bytes, sentence: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    done = fairboard("import", str(path), status=1)
    assert f"{path} {sentence}" in done.stderr
    assert "Traceback" not in done.stderr
    assert paths_of(settings, EVENTS) == []


def test_what_is_no_file_is_not_read_half(fairboard: Fairboard, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "it must be a file" in fairboard("import", str(tmp_path / "pipe"), status=1).stderr


def test_a_line_that_cannot_be_read_is_named_and_the_others_imported(
    fairboard: Fairboard, tmp_path: Path, settings: Settings
) -> None:
    """An integer of 5,000 digits where the contract has a field; where it has none it is kept as text, as at the door."""
    long = NAMELESS[0].replace(b":10,", b":%b," % (b"9" * 5000))
    odd = [long, UNKNOWN % b'"\xff"', UNKNOWN % (b"[" * 70 + b"]" * 70), UNKNOWN % (b"[" * 100_000 + b"]" * 100_000)]
    path = written(tmp_path / "a.ndjson", NAMELESS[0], *odd, NAMELESS[1], UNKNOWN % (b"9" * 5000))
    done = fairboard("import", str(path), status=1)
    assert [f"{path}:{line}: " in done.stderr for line in range(1, 8)] == [False, True, True, True, True, False, False]
    assert landed(settings).height == 3


def test_a_refused_line_keeps_its_id_where_one_can_be_read(fairboard: Fairboard, tmp_path: Path, settings: Settings) -> None:
    lines = [b'{"eventId":"e-7","type":"teleport"}', b'{"eventId":7}', b"{", b"[]"]
    fairboard("import", str(written(tmp_path / "a.ndjson", *lines)), status=1)
    assert rejected(settings)["event_id"].to_list() == ["e-7", None, None, None]


def test_what_a_refused_line_holds_moves_no_cursor(fairboard: Fairboard, tmp_path: Path) -> None:
    line = b'{"type":"\\u001b[2Jx","playerId":"a","ts":1,"payload":{}}'
    done = fairboard("import", str(written(tmp_path / "a.ndjson", line)), status=1)
    assert "\x1b" not in done.stderr
    assert "\\x1b[2Jx" in done.stderr


def test_what_was_imported_is_counted_in_words(fairboard: Fairboard, tmp_path: Path) -> None:
    assert (
        "1 event on 1 day (2026-05-01), 0 rejected"
        in fairboard("import", str(written(tmp_path / "one.ndjson", NAMELESS[0]))).stdout
    )
    assert (
        "2 events on 2 days (2026-05-01 to 2026-05-02), 0 rejected"
        in fairboard("import", str(written(tmp_path / "two.ndjson", *NAMELESS))).stdout
    )


LINES = st.lists(
    st.sampled_from(
        [*NAMELESS, UNKNOWN % (b"9" * 5000), UNKNOWN % (b'["\\ud800",%b]' % (b"9" * 5000)), b"{}", b"", b"  ", MARK, b"\x00"]
    )
    | st.binary(max_size=40)
)
CONTENT = LINES.map(b"\n".join) | st.binary(max_size=200)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Some bytes flipped, and sometimes the end cut off."""
    for at in draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        content = flipped(content, at)
    return content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("imports")


@hypothesis_settings(deadline=None)
@given(CONTENT | CONTENT.map(gzip.compress) | damaged(PACKED) | damaged(PARQUET.getvalue()))
@example(UNKNOWN % (b"9" * 5000))
@example(flipped(PACKED, 12))
def test_nothing_that_a_file_holds_is_a_traceback(scratch: Path, content: bytes) -> None:
    (scratch / "file").write_bytes(content)
    os.environ["FAIRBOARD_DATA_DIR"] = str(scratch / "data")
    with pytest.raises(SystemExit) as ended:
        main(["import", str(scratch / "file"), "--json"])
    assert ended.value.code in (0, 1)


def test_a_day_that_came_in_one_file_is_not_written_again(fairboard: Fairboard, tmp_path: Path, settings: Settings) -> None:
    """Copies in it, or another file beside it, still make it one to bring in order."""
    days = ("2026-05-01", "2026-05-02", "2026-05-03")
    events = [
        encode(progression(player, day, 1, eventId=f"{player}-{day}")) for day in days for player in ("bob", "ann", "bob")
    ]
    fairboard("import", str(written(tmp_path / "a.ndjson", events[0], events[1], *events[3:5], *events[6:])))
    fairboard("import", str(written(tmp_path / "b.ndjson", encode(progression("cid", days[1], 1, eventId="cid")))))
    before = {path.name for path in paths_of(settings, EVENTS)}
    done = fairboard("materialize", "--from", days[0], "--to", days[2], "--json").stdout
    assert msgspec.json.decode(done)[0]["details"] == {
        "landed": 8, "events": 7, "duplicates": 1, "conflicts": 0, "rejected": 0, "set_aside": 0,
    }  # fmt: skip
    files = {path.parent.name[-2:]: path for path in paths_of(settings, EVENTS)}
    assert len(paths_of(settings, EVENTS)) == 3
    assert {day: path.name in before for day, path in files.items()} == {"01": True, "02": False, "03": False}
    assert pl.read_parquet(files["01"])["player_id"].to_list() == ["ann", "bob"]
    fairboard("import", str(tmp_path / "a.ndjson"))
    answer = fairboard("sql", "SELECT count(*) AS n FROM events", "--json").stdout
    assert msgspec.json.decode(answer) == [{"n": 7}]
    fairboard("materialize", "--from", days[0], "--to", days[2])
    assert {path.name for path in paths_of(settings, EVENTS)} == {path.name for path in files.values()}


def test_long_work_says_how_far_it_is(fairboard: Fairboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.ndjson", *NAMELESS)
    assert fairboard("import", str(path)).stderr == ""  # short work is silent
    monkeypatch.setattr("pipelines.progress.LINE_EVERY_S", 0)
    done = fairboard("import", str(path), "--json")
    assert "writing days: 2 of 2\n" in done.stderr
    assert msgspec.json.decode(done.stdout)[0]["accepted"] == 2
    done = fairboard("materialize", "--from", "2026-05-01", "--to", "2026-05-02", "--json")
    assert "player_days: 2 of 2\n" in done.stderr
    assert msgspec.json.decode(done.stdout)[0]["table"] == "events"


def test_a_terminal_shows_a_bar(tmp_path: Path) -> None:
    screen, end = pty.openpty()
    command = [
        str(Path(sys.executable).parent / "fairboard"),
        "import",
        str(written(tmp_path / "a.ndjson", *NAMELESS)),
        "--json",
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=end, check=True, env=os.environ | {"TERM": "xterm"})
    os.close(end)
    shown = b""
    while part := _read(screen):
        shown += part
    assert b"writing days" in shown
    assert b"100%" in shown
    assert msgspec.json.decode(done.stdout)[0]["accepted"] == 2


def _read(screen: int) -> bytes:
    try:
        return os.read(screen, 65_536)
    except OSError:  # the other end is closed
        return b""


RULE_LINES = "".join(f"{rule},1,{'z' if rule in ('self', 'self_log') else 'q'},,,1,2026-01-01,x,y\n" for rule in RULES)
RULES_HEAD = "rule,version,measure,review,act,min_n,changed_on,changed_by,reason\n"


@pytest.mark.parametrize(
    ("variable", "content", "sentence"),
    [
        ("LEVELS", "level,xp_required\n1,0\n2,5\n3,5\n", "is no level curve"),
        ("LEVELS", "level,xp_required\n1,0\n2,many\n", "cannot be read as level, xp_required"),
        ("REWARDS", "level,reward\n5,\n", "is no list of rewards"),
        ("RULES", RULES_HEAD + RULE_LINES, "has an empty cell where none belongs"),
        ("RULES", RULES_HEAD, "must have every rule"),
    ],
)
def test_a_bad_small_table_is_found_before_anything_is_computed(
    fairboard: Fairboard, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch,
    variable: str, content: str, sentence: str,
) -> None:  # fmt: skip
    (tmp_path / "table.csv").write_text(content)
    monkeypatch.setenv(f"FAIRBOARD_{variable}_FILE", str(tmp_path / "table.csv"))
    fairboard("import", str(written(tmp_path / "a.ndjson", *NAMELESS)))
    before = sorted(settings.lake_dir.rglob("*.parquet"))
    assert sentence in fairboard("materialize", "--from", "2026-05-01", "--to", "2026-05-02", status=1).stderr
    assert sorted(settings.lake_dir.rglob("*.parquet")) == before


def test_small_tables_and_calendars_may_begin_with_a_mark(
    fairboard: Fairboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = Settings(_env_file=None)
    files = {"LEVELS_FILE": defaults.levels_file, "REWARDS_FILE": defaults.rewards_file, "RULES_FILE": defaults.rules_file}
    (tmp_path / "seasons.csv").write_text("id,start,end\nspring,2026-03-01,2026-06-01\n")
    for name, path in {**files, "SEASONS": tmp_path / "seasons.csv"}.items():
        marked = tmp_path / f"{name}.csv"
        marked.write_bytes(MARK + path.read_bytes())
        monkeypatch.setenv(f"FAIRBOARD_{name}", str(marked))
    fairboard("import", str(written(tmp_path / "a.ndjson", *NAMELESS)))
    fairboard("materialize", "--from", "2026-05-01", "--to", "2026-05-02")
    board = fairboard("leaderboard", "--window", "seasonal", "--json").stdout
    assert msgspec.json.decode(board)["season"] == "spring"

"""The relational tables (SQLAlchemy), and the one way to open them: brought to the newest revision first.

SQLite in the data folder by default, PostgreSQL in production. What does not belong here: what is written into them
(`publications.py`).
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from warehouse.errors import StoreUnavailable
from warehouse.settings import Settings

METADATA = sa.MetaData(
    naming_convention={"pk": "pk_%(table_name)s", "ix": "ix_%(table_name)s_%(column_0_N_name)s"},
)

RECEIPTS = sa.Table(
    "receipts",
    METADATA,
    sa.Column("player_id", sa.String(128), primary_key=True),
    sa.Column("level", sa.BigInteger, primary_key=True),
    sa.Column("reward", sa.String(256), primary_key=True),
    sa.Column("earned_on", sa.Date, nullable=False, comment="day on which the level was first seen reached"),
    comment="Once per player, level and reward, forever.",
)

REWARDS_GRANTED = sa.Table(
    "rewards_granted",
    METADATA,
    sa.Column("rewards", sa.String(8), primary_key=True, comment="version of FAIRBOARD_REWARDS_FILE"),
    sa.Column("granted_at", sa.DateTime(timezone=True), nullable=False),
    comment="The rewards by which every level passed so far was paid: one row.",
)

PLAYER_PROGRESS = sa.Table(
    "player_progress",
    METADATA,
    sa.Column("player_id", sa.String(128), primary_key=True),
    sa.Column("xp_total", sa.BigInteger, nullable=False),
    sa.Column("level", sa.BigInteger, nullable=False),
    sa.Column("xp_to_next", sa.BigInteger, comment="NULL at the last level"),
    sa.Column("last_active", sa.Date, nullable=False),
    comment="How far every player is.",
)

SUSPICIOUS_EVENTS = sa.Table(
    "suspicious_events",
    METADATA,
    sa.Column("event_date", sa.Date, primary_key=True),
    sa.Column("event_id", sa.String(128), primary_key=True),
    sa.Column("rule", sa.String(64), primary_key=True),
    sa.Column("rule_version", sa.BigInteger, nullable=False),
    sa.Column("player_id", sa.String(128), nullable=False, index=True),
    sa.Column("delta_xp", sa.BigInteger, nullable=False),
    sa.Column("z", sa.Float, nullable=False),
    sa.Column("threshold", sa.Float, nullable=False),
    comment="Events beyond a rule's threshold.",
)

LEADERBOARD_SNAPSHOTS = sa.Table(
    "leaderboard_snapshots",
    METADATA,
    sa.Column("window_kind", sa.String(16), primary_key=True),
    sa.Column("season", sa.String(32), primary_key=True),
    sa.Column("window_start", sa.Date, primary_key=True),
    sa.Column("rank", sa.BigInteger, primary_key=True),
    sa.Column("player_id", sa.String(128), nullable=False, index=True),
    sa.Column("xp", sa.BigInteger, nullable=False),
    sa.Column("reached_ts", sa.BigInteger, nullable=False, comment="s since the epoch"),
    comment="The top of every closed window; the lake keeps the whole board.",
)

BOARD_REVISIONS = sa.Table(
    "board_revisions",
    METADATA,
    sa.Column("window_kind", sa.String(16), primary_key=True),
    sa.Column("season", sa.String(32), primary_key=True),
    sa.Column("window_start", sa.Date, primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("cause", sa.Text, nullable=False, comment="`first publication`, `late events`, `verdict 3` …, or `recomputed`"),
    sa.Column("players", sa.BigInteger, nullable=False),
    sa.Column("moved", sa.BigInteger, nullable=False, comment="players whose rank or XP differs from the revision before"),
    sa.Column("watermark", sa.BigInteger, comment="newest event counted, s since the epoch; NULL of an empty board"),
    sa.Column("folded", sa.JSON, nullable=False, comment="what was counted of each of its days, by date"),
    comment="Every board that a closed window was published with; the boards themselves are in the lake.",
)

REVISION_CAUSES = sa.Table(
    "revision_causes",
    METADATA,
    sa.Column("window_kind", sa.String(16), primary_key=True),
    sa.Column("season", sa.String(32), primary_key=True),
    sa.Column("window_start", sa.Date, primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("player_id", sa.String(128), primary_key=True),
    sa.Column("late_events", sa.JSON, nullable=False, comment="ids, the last to arrive first, ten at most"),
    sa.Column("verdict_id", sa.Integer, comment="the verdict that took the player off, or whose reversal put back"),
    comment="Why a revision differs from the one before, for each player whose XP differs; the others only moved.",
)

CASES = sa.Table(
    "cases",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("player_id", sa.String(128), nullable=False, index=True),
    sa.Column("is_open", sa.Boolean, nullable=False),
    sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("assigned_to", sa.String(128)),
    comment="Players under review. One open case per player; what was decided stands in verdicts.",
)
sa.Index(
    "ux_cases_open_player_id", CASES.c.player_id, unique=True,
    sqlite_where=CASES.c.is_open.is_(True), postgresql_where=CASES.c.is_open.is_(True),
)  # fmt: skip

CASE_EVIDENCE = sa.Table(
    "case_evidence",
    METADATA,
    sa.Column("case_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("event_date", sa.Date, primary_key=True),
    sa.Column("rule", sa.String(64), primary_key=True),
    sa.Column("rule_version", sa.BigInteger, nullable=False),
    sa.Column("verdict", sa.String(32), nullable=False, comment="as in the table fairness of the lake"),
    sa.Column("act", sa.Boolean, nullable=False),
    sa.Column("observed", sa.Float),
    sa.Column("baseline_center", sa.Float),
    sa.Column("baseline_n", sa.BigInteger, nullable=False),
    sa.Column("z", sa.Float),
    sa.Column("p", sa.Float),
    sa.Column("q", sa.Float),
    sa.Column("share", sa.Float),
    sa.Column("evidence", sa.JSON, nullable=False, comment="event ids, the strongest first, ten at most"),
    comment="What the rules said of the player on each day that the case is about.",
)

CASE_NOTES = sa.Table(
    "case_notes",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("case_id", sa.Integer, nullable=False, index=True),
    sa.Column("noted_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("noted_by", sa.String(128), nullable=False),
    sa.Column("action", sa.String(16), nullable=False, comment="`opened`, `assigned`, `commented`, `decided` or `reversed`"),
    sa.Column("text", sa.Text, nullable=False),
    comment="Everything that happened to a case, by whom and why. Never changed.",
)

ALERTS = sa.Table(
    "alerts",
    METADATA,
    sa.Column("subject", sa.String(64), primary_key=True, comment="`case 12` or `day 2026-11-20`: alerted once"),
    sa.Column("raised_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("sent_at", sa.DateTime(timezone=True), comment="NULL as long as nobody took it"),
    comment="What somebody was told at once.",
)

VERDICTS = sa.Table(
    "verdicts",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("player_id", sa.String(128), nullable=False, index=True),
    sa.Column("case_id", sa.Integer, index=True, comment="the case it closed; NULL of a verdict without one"),
    sa.Column("decision", sa.String(16), nullable=False, comment="`confirmed`, `dismissed` or `insufficient`"),
    sa.Column("excluded_from", sa.Date, comment="NULL: excludes from nothing"),
    sa.Column("excluded_until", sa.Date, comment="exclusive; NULL: for good"),
    sa.Column("decided_by", sa.String(128), nullable=False),
    sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("rules_version", sa.Text),
    sa.Column("reversed_by", sa.String(128)),
    sa.Column("reversed_at", sa.DateTime(timezone=True)),
    sa.Column("reversal_reason", sa.Text),
    sa.Column("enforced_at", sa.DateTime(timezone=True), comment="when the boards followed; NULL as long as they have not"),
    comment="What was decided about a player. Never changed nor deleted: reversed.",
)

PUBLICATIONS = sa.Table(
    "publications",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("redis_key", sa.String(128), nullable=False, index=True),
    sa.Column("window_start", sa.Date, nullable=False),
    sa.Column("revision", sa.BigInteger, comment="NULL of a failed publication"),
    sa.Column("watermark", sa.BigInteger, comment="newest event counted, s since the epoch; NULL of an empty board"),
    sa.Column("players", sa.BigInteger, nullable=False),
    sa.Column("published_at", sa.DateTime(timezone=True), nullable=False, index=True),
    sa.Column("duration_ms", sa.BigInteger, nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False, server_default="published", comment="`published` or `failed`"),
    sa.Column("how", sa.String(16), comment="`whole` or `changes`; NULL of a failed publication"),
    sa.Column("members", sa.BigInteger, comment="members sent or taken out"),
    sa.Column("error", sa.Text, comment="why it failed"),
    comment="Every board swapped into Redis, and every one that was refused, of the last three days.",
)


def open_database(settings: Settings) -> sa.Engine:
    """The database, with its tables at the newest revision.

    Raises:
        StoreUnavailable: it cannot be reached, or refuses the migration.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(settings.sqlalchemy_url)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _prepare_sqlite)
    try:
        if _is_behind(engine):
            _upgrade(settings, engine)
    except sa.exc.SQLAlchemyError as error:
        raise StoreUnavailable(
            f"The SQL database {engine.url.render_as_string()} cannot be used: {error}. Nothing was changed. "
            "See FAIRBOARD_DATABASE_URL."
        ) from error
    return engine


@contextmanager
def reading(settings: Settings) -> Iterator[sa.Connection | None]:
    """A connection for who only reads; None where SQLite has no file yet, because reading makes none.

    Raises:
        StoreUnavailable: as `open_database`.
    """
    url = sa.make_url(settings.sqlalchemy_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        yield None
        return
    database = open_database(settings)
    try:
        with database.connect() as connection:
            yield connection
    finally:
        database.dispose()


def in_utc(row: sa.RowMapping) -> dict[str, Any]:
    """A row with its times in UTC: SQLite gives them back without a zone, PostgreSQL in its own."""
    return {str(name): _utc(value) if isinstance(value, datetime) else value for name, value in row.items()}


def _utc(time: datetime) -> datetime:
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """Readers do not wait for writers, and writers wait for each other instead of failing."""
    connection.execute("PRAGMA busy_timeout = 60000")
    connection.execute("PRAGMA journal_mode = WAL")


def alembic_config(url: sa.URL) -> Config:
    """Alembic's configuration: the revisions of `warehouse/migrations`."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["url"] = url
    return config


def _is_behind(engine: sa.Engine) -> bool:
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    return current != ScriptDirectory.from_config(alembic_config(engine.url)).get_current_head()


def _upgrade(settings: Settings, engine: sa.Engine) -> None:
    """Two processes that find an old database must not both migrate it."""
    with (settings.data_dir / "database.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if _is_behind(engine):
            command.upgrade(alembic_config(engine.url), "head")

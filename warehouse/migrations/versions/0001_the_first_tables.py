"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "leaderboard_snapshots",
        sa.Column("window_kind", sa.String(length=16), nullable=False),
        sa.Column("season", sa.String(length=32), nullable=False),
        sa.Column("window_start", sa.Date(), nullable=False),
        sa.Column("rank", sa.BigInteger(), nullable=False),
        sa.Column("player_id", sa.String(length=128), nullable=False),
        sa.Column("xp", sa.BigInteger(), nullable=False),
        sa.Column("reached_ts", sa.BigInteger(), nullable=False, comment="s since the epoch"),
        sa.PrimaryKeyConstraint("window_kind", "season", "window_start", "rank", name=op.f("pk_leaderboard_snapshots")),
        comment="The top of every closed window; the lake keeps the whole board.",
    )
    with op.batch_alter_table("leaderboard_snapshots", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_leaderboard_snapshots_player_id"), ["player_id"], unique=False)

    op.create_table(
        "player_progress",
        sa.Column("player_id", sa.String(length=128), nullable=False),
        sa.Column("xp_total", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.BigInteger(), nullable=False),
        sa.Column("xp_to_next", sa.BigInteger(), nullable=True, comment="NULL at the last level"),
        sa.Column("last_active", sa.Date(), nullable=False),
        sa.PrimaryKeyConstraint("player_id", name=op.f("pk_player_progress")),
        comment="How far every player is.",
    )
    op.create_table(
        "publications",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("redis_key", sa.String(length=128), nullable=False),
        sa.Column("window_start", sa.Date(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column(
            "watermark",
            sa.BigInteger(),
            nullable=True,
            comment="newest event counted, s since the epoch; NULL of an empty board",
        ),
        sa.Column("players", sa.BigInteger(), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("duration_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_publications")),
        comment="Every board swapped into Redis.",
    )
    with op.batch_alter_table("publications", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_publications_redis_key"), ["redis_key"], unique=False)

    op.create_table(
        "receipts",
        sa.Column("player_id", sa.String(length=128), nullable=False),
        sa.Column("level", sa.BigInteger(), nullable=False),
        sa.Column("reward", sa.String(length=256), nullable=False),
        sa.Column("earned_on", sa.Date(), nullable=False, comment="day on which the level was first seen reached"),
        sa.PrimaryKeyConstraint("player_id", "level", "reward", name=op.f("pk_receipts")),
        comment="Once per player, level and reward, forever.",
    )
    op.create_table(
        "suspicious_events",
        sa.Column("event_date", sa.Date(), nullable=False),
        sa.Column("event_id", sa.String(length=128), nullable=False),
        sa.Column("rule", sa.String(length=64), nullable=False),
        sa.Column("rule_version", sa.BigInteger(), nullable=False),
        sa.Column("player_id", sa.String(length=128), nullable=False),
        sa.Column("delta_xp", sa.BigInteger(), nullable=False),
        sa.Column("z", sa.Float(), nullable=False),
        sa.Column("threshold", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("event_date", "event_id", "rule", name=op.f("pk_suspicious_events")),
        comment="Events beyond a rule's threshold.",
    )
    with op.batch_alter_table("suspicious_events", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_suspicious_events_player_id"), ["player_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("suspicious_events", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_suspicious_events_player_id"))

    op.drop_table("suspicious_events")
    op.drop_table("receipts")
    with op.batch_alter_table("publications", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_publications_redis_key"))

    op.drop_table("publications")
    op.drop_table("player_progress")
    with op.batch_alter_table("leaderboard_snapshots", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_leaderboard_snapshots_player_id"))

    op.drop_table("leaderboard_snapshots")

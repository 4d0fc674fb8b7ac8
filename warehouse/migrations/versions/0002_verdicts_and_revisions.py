"""Verdicts, and revisions of closed boards."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "board_revisions",
        sa.Column("window_kind", sa.String(length=16), nullable=False),
        sa.Column("season", sa.String(length=32), nullable=False),
        sa.Column("window_start", sa.Date(), nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "cause", sa.Text(), nullable=False, comment="`first publication`, `late events`, `verdict 3` …, or `recomputed`"
        ),
        sa.Column("players", sa.BigInteger(), nullable=False),
        sa.Column(
            "moved", sa.BigInteger(), nullable=False, comment="players whose rank or XP differs from the revision before"
        ),
        sa.Column(
            "watermark",
            sa.BigInteger(),
            nullable=True,
            comment="newest event counted, s since the epoch; NULL of an empty board",
        ),
        sa.Column("folded", sa.JSON(), nullable=False, comment="what was counted of each of its days, by date"),
        sa.PrimaryKeyConstraint("window_kind", "season", "window_start", "revision", name=op.f("pk_board_revisions")),
        comment="Every board that a closed window was published with; the boards themselves are in the lake.",
    )
    op.create_table(
        "revision_causes",
        sa.Column("window_kind", sa.String(length=16), nullable=False),
        sa.Column("season", sa.String(length=32), nullable=False),
        sa.Column("window_start", sa.Date(), nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("player_id", sa.String(length=128), nullable=False),
        sa.Column("late_events", sa.JSON(), nullable=False, comment="ids, the last to arrive first, ten at most"),
        sa.Column(
            "verdict_id",
            sa.Integer(),
            nullable=True,
            comment="the verdict that took the player off, or whose reversal put back",
        ),
        sa.PrimaryKeyConstraint(
            "window_kind", "season", "window_start", "revision", "player_id", name=op.f("pk_revision_causes")
        ),
        comment="Why a revision differs from the one before, for each player whose XP differs; the others only moved.",
    )
    op.create_table(
        "verdicts",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("player_id", sa.String(length=128), nullable=False),
        sa.Column("case_id", sa.Integer(), nullable=True, comment="the case it closed; NULL of a verdict without one"),
        sa.Column("decision", sa.String(length=16), nullable=False, comment="`confirmed`, `dismissed` or `insufficient`"),
        sa.Column("excluded_from", sa.Date(), nullable=True, comment="NULL: excludes from nothing"),
        sa.Column("excluded_until", sa.Date(), nullable=True, comment="exclusive; NULL: for good"),
        sa.Column("decided_by", sa.String(length=128), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("rules_version", sa.Text(), nullable=True),
        sa.Column("reversed_by", sa.String(length=128), nullable=True),
        sa.Column("reversed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reversal_reason", sa.Text(), nullable=True),
        sa.Column(
            "enforced_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when the boards followed; NULL as long as they have not",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_verdicts")),
        comment="What was decided about a player. Never changed nor deleted: reversed.",
    )
    with op.batch_alter_table("verdicts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_verdicts_case_id"), ["case_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_verdicts_player_id"), ["player_id"], unique=False)


def downgrade() -> None:
    op.drop_table("verdicts")
    op.drop_table("revision_causes")
    op.drop_table("board_revisions")

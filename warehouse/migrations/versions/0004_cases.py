"""Cases, their evidence and notes, and alerts."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "cases",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("player_id", sa.String(length=128), nullable=False),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("assigned_to", sa.String(length=128), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cases")),
        comment="Players under review. One open case per player; what was decided stands in verdicts.",
    )
    op.create_index(op.f("ix_cases_player_id"), "cases", ["player_id"])
    is_open = sa.text("is_open")
    op.create_index(
        "ux_cases_open_player_id", "cases", ["player_id"], unique=True, sqlite_where=is_open, postgresql_where=is_open
    )
    op.create_table(
        "case_evidence",
        sa.Column("case_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("event_date", sa.Date(), nullable=False),
        sa.Column("rule", sa.String(length=64), nullable=False),
        sa.Column("rule_version", sa.BigInteger(), nullable=False),
        sa.Column("verdict", sa.String(length=32), nullable=False, comment="as in the table fairness of the lake"),
        sa.Column("act", sa.Boolean(), nullable=False),
        sa.Column("observed", sa.Float(), nullable=True),
        sa.Column("baseline_center", sa.Float(), nullable=True),
        sa.Column("baseline_n", sa.BigInteger(), nullable=False),
        sa.Column("z", sa.Float(), nullable=True),
        sa.Column("p", sa.Float(), nullable=True),
        sa.Column("q", sa.Float(), nullable=True),
        sa.Column("share", sa.Float(), nullable=True),
        sa.Column("evidence", sa.JSON(), nullable=False, comment="event ids, the strongest first, ten at most"),
        sa.PrimaryKeyConstraint("case_id", "event_date", "rule", name=op.f("pk_case_evidence")),
        comment="What the rules said of the player on each day that the case is about.",
    )
    op.create_table(
        "case_notes",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("case_id", sa.Integer(), nullable=False),
        sa.Column("noted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("noted_by", sa.String(length=128), nullable=False),
        sa.Column(
            "action",
            sa.String(length=16),
            nullable=False,
            comment="`opened`, `assigned`, `commented`, `decided` or `reversed`",
        ),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_case_notes")),
        comment="Everything that happened to a case, by whom and why. Never changed.",
    )
    op.create_index(op.f("ix_case_notes_case_id"), "case_notes", ["case_id"])
    op.create_table(
        "alerts",
        sa.Column("subject", sa.String(length=64), nullable=False, comment="`case 12` or `day 2026-11-20`: alerted once"),
        sa.Column("raised_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True, comment="NULL as long as nobody took it"),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_alerts")),
        comment="What somebody was told at once.",
    )


def downgrade() -> None:
    for table in ("alerts", "case_notes", "case_evidence", "cases"):
        op.drop_table(table)

"""Which rewards the receipts follow, so that changed ones reach the levels that were passed before."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "rewards_granted",
        sa.Column("rewards", sa.String(length=8), nullable=False, comment="version of FAIRBOARD_REWARDS_FILE"),
        sa.Column("granted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("rewards", name=op.f("pk_rewards_granted")),
        comment="The rewards by which every level passed so far was paid: one row.",
    )


def downgrade() -> None:
    op.drop_table("rewards_granted")

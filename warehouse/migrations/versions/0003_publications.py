"""Publications: how a board was published, and those that failed."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    with op.batch_alter_table("publications", schema=None) as batch_op:
        batch_op.alter_column("revision", existing_type=sa.BigInteger(), nullable=True, comment="NULL of a failed publication")
        batch_op.add_column(
            sa.Column(
                "outcome",
                sa.String(length=16),
                nullable=False,
                server_default="published",
                comment="`published` or `failed`",
            )
        )
        batch_op.add_column(
            sa.Column("how", sa.String(length=16), nullable=True, comment="`whole` or `changes`; NULL of a failed publication")
        )
        batch_op.add_column(sa.Column("members", sa.BigInteger(), nullable=True, comment="members sent or taken out"))
        batch_op.add_column(sa.Column("error", sa.Text(), nullable=True, comment="why it failed"))
        batch_op.create_index(batch_op.f("ix_publications_published_at"), ["published_at"], unique=False)
        batch_op.create_table_comment(
            "Every board swapped into Redis, and every one that was refused, of the last three days.",
            existing_comment="Every board swapped into Redis.",
        )


def downgrade() -> None:
    op.execute("DELETE FROM publications WHERE revision IS NULL")
    with op.batch_alter_table("publications", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_publications_published_at"))
        for column in ("error", "members", "how", "outcome"):
            batch_op.drop_column(column)
        batch_op.alter_column("revision", existing_type=sa.BigInteger(), nullable=False)

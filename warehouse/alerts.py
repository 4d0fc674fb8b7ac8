"""Alerts: what somebody must hear at once. One small notifier: a POST to the webhook if there is one, else a line in the log.

An alert is recorded before it is sent and marked after: nothing is told twice, and what nobody took is tried again.
What does not belong here: what deserves an alert (`warehouse/publications.py`).
"""

from datetime import UTC, datetime

import httpx
import sqlalchemy as sa
import structlog

from warehouse.database import ALERTS
from warehouse.errors import StoreUnavailable
from warehouse.settings import Settings

TIMEOUT_S = 10


def raise_alert(connection: sa.Connection, subject: str, text: str) -> None:
    """Record an alert, unless there was one of that subject; `send` tells it."""
    if connection.execute(sa.select(ALERTS.c.subject).where(ALERTS.c.subject == subject)).first() is None:
        connection.execute(sa.insert(ALERTS), {"subject": subject, "text": text, "raised_at": datetime.now(UTC)})


def send(settings: Settings, database: sa.Engine) -> int:
    """Tell every alert that was not told yet; how many.

    Raises:
        StoreUnavailable: the webhook did not take one. It and those after it are kept for the next time.
    """
    with database.connect() as connection:
        waiting = connection.execute(sa.select(ALERTS).where(ALERTS.c.sent_at.is_(None)).order_by(ALERTS.c.raised_at)).all()
    for alert in waiting:
        _tell(settings, alert.subject, alert.text)
        with database.begin() as connection:
            connection.execute(sa.update(ALERTS).where(ALERTS.c.subject == alert.subject).values(sent_at=datetime.now(UTC)))
    return len(waiting)


def _tell(settings: Settings, subject: str, text: str) -> None:
    if settings.alert_webhook is None:
        structlog.get_logger().warning("alert", subject=subject, text=text)
        return
    try:
        httpx.post(settings.alert_webhook, json={"subject": subject, "text": text}, timeout=TIMEOUT_S).raise_for_status()
    except httpx.HTTPError as error:
        raise StoreUnavailable(
            f"The alert on {subject} was not taken by FAIRBOARD_ALERT_WEBHOOK: {error}. It is kept and sent again."
        ) from error

"""Plays a simulated game through the signed HTTP API and counts what the service answers."""

from collections.abc import Callable
from itertools import islice

import msgspec

from ingest_api.client import SignedClient
from pipelines.simulation import Simulation, wire

BATCH = 500


class Tally(msgspec.Struct):
    """What was sent and what became of it. sent = accepted + duplicates + rejected."""

    sent: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0

    def sentence(self) -> str:
        """The tally in one line."""
        return (
            f"sent {self.sent:,} events: {self.accepted:,} accepted, {self.duplicates:,} duplicates, {self.rejected:,} rejected"
        )


def send(client: SignedClient, game: Simulation, progress: Callable[[Tally], None] = lambda _: None) -> Tally:
    """Send every day of the game in batches; `progress` is told after each."""
    tally = Tally()
    for day in game.scenario.days:
        events = iter(wire(game.day(day)))
        while batch := list(islice(events, BATCH)):
            send_batch(client, batch, tally)
            progress(tally)
    return tally


def send_batch(client: SignedClient, batch: list[bytes], tally: Tally) -> None:
    """Send one batch and count the answer."""
    answer = client.post_batch(b"[" + b",".join(batch) + b"]")
    tally.sent += len(batch)
    tally.accepted += answer.accepted
    tally.duplicates += answer.duplicates
    tally.rejected += answer.rejected

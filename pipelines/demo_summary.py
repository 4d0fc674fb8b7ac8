"""What `fairboard demo` shows at its end: counts, boards, a player, the flagged with their evidence, where to look next."""

from dataclasses import dataclass
from datetime import UTC, date, datetime

import polars as pl
from rich.columns import Columns
from rich.console import Group
from rich.text import Text

from pipelines.output import arrow, build_table, out, table
from pipelines.play import Tally
from warehouse.boards import Board
from warehouse.calendar import WindowKind
from warehouse.errors import FairboardError
from warehouse.settings import Settings


@dataclass(slots=True)
class Report:
    """What the demo saw, read back the way its users would.

    `suspects` is `readings.suspects`; `textbook` counts the players whom the textbook rule flags; `planted` are the ids of
    those who cheat in the simulation.
    """

    today: date
    tally: Tally
    landed: int
    boards: dict[WindowKind, Board]
    champion: str
    progress: dict[str, str]
    suspects: pl.DataFrame
    textbook: int
    planted: set[str]
    seconds: float = 0.0


def show(settings: Settings, report: Report) -> None:
    """Print the summary.

    Raises:
        FairboardError: not every accepted event is in the lake exactly once.
    """
    _show_boards(report)
    _show_fairness(report)
    _show_counts(report)
    _show_next(settings, report)


def _show_boards(report: Report) -> None:
    boards = []
    for kind, board in report.boards.items():
        about = f"{board.meta.players:,} players, resets {board.meta.resets_at[:10]}"
        head = Text.assemble((f"{kind.capitalize()} board", "bold"), "\n", (about, "dim"))
        rows = [(e.rank, arrow(e.movement), e.player_id, e.score) for e in board.entries]
        boards.append(Group(head, build_table(["rank", "", "player", "XP"], rows, right=["rank", "XP"]), ""))
    out.print()
    out.print(Columns(boards, padding=(0, 4)))
    progress = report.progress
    missing = f"{int(progress['xp_to_next']):,} XP to the next" if progress["xp_to_next"] else "the highest there is"
    out.print(f"\n{report.champion} leads the season: {int(progress['xp']):,} XP, level {progress['level']}, {missing}")


def _show_fairness(report: Report) -> None:
    rows = [
        (
            row["player_id"],
            row["rule"],
            row["observed"],
            row["baseline_center"],
            row["baseline_n"],
            row["z"],
            f"{row['q']:.0e}",
            "planted" if row["player_id"] in report.planted else "honest",
        )
        for row in report.suspects.iter_rows(named=True)
    ]
    columns = ["player", "strongest reason", "observed", "usual", "of so many", "z", "q", "truth"]
    table(f"\nUnder review on {report.today}, with the strongest reason", columns, rows, right=columns[2:-1])
    found = set(report.suspects["player_id"]) & report.planted
    out.print(
        f"{len(found)} of {len(report.planted)} planted cheaters found, {report.suspects.height - len(found)} honest players "
        f"flagged; the textbook rule (|z| > 3 against one's own history) flags {report.textbook:,}"
    )


def _show_counts(report: Report) -> None:
    accepted = report.tally.accepted
    out.print(f"\n{report.tally.sentence()}", style="bold")
    if accepted != report.landed:
        raise FairboardError(f"{accepted:,} events were accepted, but {report.landed:,} are in the lake. Please report this.")
    now = datetime.now(UTC)
    out.print(f"{report.landed:,} events are in the lake, each once · {report.seconds:.0f} s · {now:%Y-%m-%d %H:%M} UTC")


def _show_next(settings: Settings, report: Report) -> None:
    commands = {
        "make up": "the whole system on this data",
        "fairboard leaderboard --window weekly": "any board, of any day",
        f"fairboard player {report.champion}": "how they got there",
        f"fairboard fairness --date {report.today}": "the whole fairness report",
        'fairboard sql "SELECT * FROM player_days LIMIT 3"': "ask the lake anything",
        f"ls {settings.data_dir}/lake": "the Parquet files themselves",
    }
    table("\nWhere to look next (fairboard is in .venv/bin)", ["", ""], commands.items())

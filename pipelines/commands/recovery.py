"""Commands that keep a deployment's data: backup, restore, upgrade-lake."""

import shutil
import tempfile
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ingest_api.journal_copies import copy_journal, restore_segment
from pipelines.output import complain, emit_json, out, table
from warehouse.backup import Manifest, back_up, manifests, open_backups, prune
from warehouse.engine import open_engine
from warehouse.errors import FairboardError
from warehouse.lake import Lake, open_leases
from warehouse.lake.storage import Storage
from warehouse.restore import Restored, check_timezone, misfits, restore_database, restore_keys, restore_lake, segments
from warehouse.settings import Settings, load_settings
from warehouse.upgrade import upgrade

TIMES = ["%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f"]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


class Part(StrEnum):
    """What of a backup can be restored by itself."""

    LAKE = "lake"
    DATABASE = "database"
    JOURNAL = "journal"
    KEYS = "keys"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (backup, restore):
        app.command()(command)
    app.command("upgrade-lake")(upgrade_lake)


def backup(
    to: Annotated[str, typer.Argument(metavar="TO", help="The folder or bucket that keeps the backups.")],
    keep: Annotated[int | None, typer.Option(min=1, help="Let all but the newest N backups go.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="Make none; show those that are there.")] = False,
    json: Json = False,
) -> None:
    """Copy lake, database, journal and keys, while everything runs. What an earlier backup there has is not copied again."""
    settings = load_settings()
    backups = open_backups(settings, to)
    if list_:
        _show(manifests(backups), json=json)
        return
    with open_leases(settings).hold("backup"), tempfile.TemporaryDirectory(prefix="backup-", dir=backups.scratch) as folder:
        for left in backups.scratch.glob("backup-*"):  # of a run that was killed: copies of the journal
            if left != Path(folder):
                shutil.rmtree(left)
        done = back_up(settings, backups, list(copy_journal(settings, Path(folder))))
        done.pruned = prune(backups, keep, done.name) if keep else 0
    if json:
        emit_json(done)
    else:
        sizes = f"{done.files:,} files, {_megabytes(done.size)}; copied {done.copied_files:,}, {_megabytes(done.copied)}"
        out.print(f"{backups.shown(done.name)}: {sizes}", soft_wrap=True)
    for sentence in [*done.left_out, *done.damaged]:
        complain(sentence)
    if done.damaged:
        raise FairboardError(
            f"{len(done.damaged)} damaged files of the lake are not in this backup; an earlier one may have them. "
            "`fairboard verify --repair` says what can be done."
        )


def _show(found: dict[str, Manifest], *, json: bool) -> None:
    rows = []
    for name, manifest in found.items():
        every = [*manifest.files, *(one for some in manifest.lake.values() for one in some)]
        rows.append((name, manifest.made_at, len(every), sum(one.size for one in every)))
    if json:
        emit_json([dict(zip(("name", "made_at", "files", "size"), row, strict=True)) for row in rows])
        return
    table(
        "Backups",
        ["made at", "files", "size"],
        [(f"{at:%Y-%m-%d %H:%M:%S}", files, _megabytes(size)) for _, at, files, size in rows],
        right=["files", "size"],
    )


def restore(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The folder or bucket that keeps the backups.")],
    at: Annotated[
        datetime | None,
        typer.Option(formats=TIMES, help="The newest backup of that time (UTC) or before; default the newest."),
    ] = None,
    only: Annotated[list[Part] | None, typer.Option(help="A part of it; default all.")] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Put the backup's database and keys in the place of others, which are kept beside."),
    ] = False,
    json: Json = False,
) -> None:
    """Bring a backup back, into an empty deployment or one that lacks something. What is there stays."""
    settings = load_settings()
    backups = open_backups(settings, source)
    manifest = _chosen(backups, at)
    parts = set(only or Part)
    with open_leases(settings).hold("restore"):
        done = _restore(settings, backups, manifest, parts, replace=replace)
    if json:
        emit_json(done)
    else:
        out.print(f"The backup of {manifest.made_at.isoformat(' ', 'seconds')}:")
        table("", ["table", "rows that came back"], [*done.rows.items()], right=["rows that came back"])
        for name in done.files:
            out.print(name, soft_wrap=True)
    for sentence in [*done.missing, *done.refused, *done.look]:
        complain(f"{sentence}.")
    if done.missing or done.refused:
        raise FairboardError("Not everything came back; what did is in its place, and nothing else was changed.")


def _restore(settings: Settings, backups: Storage, manifest: Manifest, parts: set[Part], *, replace: bool) -> Restored:
    done = Restored()
    if Part.LAKE in parts:
        check_timezone(settings, manifest)
    if Part.KEYS in parts:
        restore_keys(settings, backups, manifest, done, replace=replace)
    if Part.DATABASE in parts:
        restore_database(settings, backups, manifest, done, replace=replace)
    if Part.LAKE in parts:
        with Lake(settings) as lake:
            restore_lake(lake, backups, manifest, done)
    if Part.JOURNAL in parts:
        for name, content in segments(backups, manifest, done):
            if restore_segment(settings, name, content):
                done.files.append(f"journal/{name}")
    with open_engine(settings) as engine:
        done.look += misfits(engine, manifest, parts)
    return done


def upgrade_lake(json: Json = False) -> None:
    """Convert a lake of format 1, from before its tables were Delta tables, where it lies. Stop everything else before."""
    done = upgrade(load_settings())
    if json:
        emit_json(done)
    else:
        table("The lake is in format 2", ["table", "files"], [*done.files.items()], right=["files"])
        out.print("What was computed is of an older version now: the schedule, or `fairboard materialize`, computes it again.")
    for sentence in [*done.left, *done.set_aside]:
        complain(sentence)
    if done.set_aside:
        raise FairboardError(
            f"{len(done.set_aside)} files of the lake were damaged or missing before; everything else was converted. Put their "
            "copies from a backup in their places and run this again (docs/operations.md)."
        )


def _chosen(backups: Storage, at: datetime | None) -> Manifest:
    until = None if at is None else at.replace(tzinfo=UTC, microsecond=at.microsecond or 999_999)  # all of its second
    found = [one for one in manifests(backups).values() if until is None or one.made_at <= until]
    if not found:
        raise FairboardError(
            f"{backups.shown('')} holds no backup{f' of {at:%Y-%m-%d %H:%M:%S} UTC or before' if at else ''}. "
            "Nothing was changed. `fairboard backup FROM --list` shows those that are there."
        )
    return found[-1]


def _megabytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"

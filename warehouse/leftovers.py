"""A player in files that are in no table: the quarantine, and what a killed writer or a person left in a table's folder.

What does not belong here: the tables (`erasure.py`), and backups.
"""

import hashlib
from collections.abc import Callable
from io import BytesIO

import polars as pl

from warehouse.damage import MISSING
from warehouse.lake import QUARANTINE, Lake, LakeFile, strays
from warehouse.repair import is_kept, settle_strays
from warehouse.tables import Table

Naming = Callable[[Table], pl.Expr]  # of a table's rows, whether they are about the player


def take_in_strays(lake: Lake, tables: list[Table]) -> list[str]:
    """Bring what landed and is in no table into its table, where a player can be found. Returns what cannot be."""
    found = [one for table in tables for one in settle_strays(lake, table)]
    lake.refresh()
    return [f"{one.path} {one.what}" for one in found if not one.is_whole]


def remove_from_leftovers(lake: Lake, tables: list[Table], naming: Naming) -> list[str]:
    """Delete computed files that are in no table, and write those of the quarantine anew without the player.

    Returns, in sentences, what cannot be read and so may still hold the player.
    """
    left = []
    for table in tables:
        with lake.lock(table.name):  # nobody is between a file and its commit
            found = [LakeFile(one.name, one.size, 0, 0) for one in strays(lake, table)]
            lake.storage.delete([file.name for file in found if not is_kept(table, file)])
        for one in list(lake.storage.list(f"{QUARANTINE}/{table.name}")):
            if one.name.endswith(MISSING):
                continue
            content = lake.storage.read(one.name) or b""
            if hashlib.sha256(content).hexdigest() == LakeFile(one.name, 0, 0, 0).sha256:
                left.append(
                    f"{lake.storage.shown(one.name)} is sound, and not searched while it is set aside: take it in with "
                    "`fairboard verify --repair`, and run the same again."
                )
                continue
            try:
                rows = pl.read_parquet(BytesIO(content))
                kept = rows.filter(~naming(table))
            except (pl.exceptions.PolarsError, OSError) as error:
                left.append(
                    f"{lake.storage.shown(one.name)} was set aside as damaged and cannot be read ({type(error).__name__}): it "
                    "may hold them. Restore it from a backup, or delete it, and run the same again."
                )
                continue
            if kept.height < rows.height:
                out = BytesIO()
                kept.write_parquet(out)
                lake.storage.replace(one.name, out.getvalue())
    return left

"""The lake's tables: read in snapshots, written in commits, in a folder or a bucket. No other package knows how."""

from warehouse.lake.commits import LostRace, Marker, Staged
from warehouse.lake.housekeeping import Tidied, strays, tidy, vacuum_now
from warehouse.lake.lake import DATA, FACTS, Lake, as_basis, conform, fingerprint_of, noted_in, origin_of
from warehouse.lake.leases import open_leases
from warehouse.lake.names import QUARANTINE, Keys, LakeFile
from warehouse.lake.partitions import split_partitions
from warehouse.lake.snapshots import LogDamaged, Snapshot
from warehouse.lake.storage import DamagedFile, fsync, sha256, write_durably

__all__ = [
    "DATA",
    "FACTS",
    "QUARANTINE",
    "DamagedFile",
    "Keys",
    "Lake",
    "LakeFile",
    "LogDamaged",
    "LostRace",
    "Marker",
    "Snapshot",
    "Staged",
    "Tidied",
    "as_basis",
    "conform",
    "fingerprint_of",
    "fsync",
    "noted_in",
    "open_leases",
    "origin_of",
    "sha256",
    "split_partitions",
    "strays",
    "tidy",
    "vacuum_now",
    "write_durably",
]

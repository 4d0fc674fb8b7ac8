"""The check of the files themselves: what was set aside as damaged holds its days back until a person has decided about it.

What does not belong here: checks of what stands in the tables (`checks.py`).
"""

import dagster as dg

from warehouse.calendar import Days
from warehouse.lake import Lake
from warehouse.losses import files_set_aside
from warehouse.tables import EVENTS

NAME = "no_files_set_aside"


def damage_spec() -> dg.AssetCheckSpec:
    """The check that `events` promises."""
    return dg.AssetCheckSpec(
        NAME,
        asset=EVENTS.name,
        blocking=True,
        description="No file of these days' events was set aside as damaged. Where one was, the days are neither computed nor "
        "published until the file is restored, or the loss accepted: `fairboard accept-loss DAY`.",
    )


def damage_result(lake: Lake, days: Days) -> dg.AssetCheckResult:
    """Look into the quarantine."""
    found = files_set_aside(lake, days)
    files = dg.MetadataValue.md("\n".join(f"- `{path}`" for path in found))
    todo = dg.MetadataValue.text("restore them, or `fairboard accept-loss DAY` (docs/operations.md)")
    return dg.AssetCheckResult(
        check_name=NAME, passed=not found, metadata={"files": files, "what to do": todo} if found else {}
    )

"""The check of the files themselves: what was set aside as damaged stays in sight until a person has decided about it.

What does not belong here: checks of what stands in the tables (`checks.py`).
"""

import dagster as dg

from warehouse.damage import quarantined
from warehouse.lake import Lake
from warehouse.settings import Settings
from warehouse.tables import EVENTS


@dg.asset_check(
    asset=EVENTS.name,
    name="no_files_set_aside",
    description="No file of events was set aside as damaged. It does not block: the other files' events are right.",
)
def no_files_set_aside(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Look into the quarantine."""
    found = quarantined(Lake(settings), EVENTS)
    files = dg.MetadataValue.md("\n".join(f"- `{path}`" for path in found))
    return dg.AssetCheckResult(passed=not found, metadata={"files": files, "what to do": "docs/operations.md"} if found else {})

"""The Dagster assets and their checks."""

import warnings

import dagster as dg

# Dagster calls `backfill_policy` beta, once per asset and process; we chose it (docs/adr/0006-ranges-in-one-run.md).
warnings.filterwarnings("ignore", category=dg.BetaWarning, message=".*backfill_policy.*")

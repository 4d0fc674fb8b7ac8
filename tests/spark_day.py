"""A process of its own for `test_engines.py`: the job `day` over a range, for the deployment of its environment."""

import sys

import dagster as dg

from pipelines.definitions import build_definitions
from warehouse.settings import load_settings

job = build_definitions({"settings": load_settings()}).resolve_job_def("day")
tags = {"dagster/asset_partition_range_start": sys.argv[1], "dagster/asset_partition_range_end": sys.argv[2]}
with dg.DagsterInstance.ephemeral() as instance:
    result = job.execute_in_process(tags=tags, instance=instance)
sys.exit(not (result.success and all(check.passed for check in result.get_asset_check_evaluations())))

"""Writers and readers of one lake at once, for some seconds: `make stress` does it for two minutes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "stress_lake.py"


@pytest.mark.timeout(600)  # nine processes: 30 s of CPU, which a busy machine makes minutes
def test_no_read_fails_or_mixes_beside_sealers_folds_and_vacuuming_and_the_end_is_as_computed_afresh() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--seconds", "10", "--kept", "2"], capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr
    figure = json.loads(done.stdout)
    problems = {name: figure[name] for name in ("failed_writes", "failed_reads", "mixed_reads", "end")}
    assert problems == {"failed_writes": 0, "failed_reads": 0, "mixed_reads": 0, "end": ""}, done.stderr
    assert all(figure["by_role"].values()), f"somebody did nothing: {figure}"
    assert figure["files vacuumed"] > 0
    assert done.returncode == 0

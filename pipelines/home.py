"""Dagster's home: DATA_DIR/dagster, with the project's dagster.yaml in it."""

import os
import shutil
from pathlib import Path

from warehouse.settings import Settings

CONFIG = Path(__file__).parent.parent / "dagster.yaml"


def prepare_home(settings: Settings) -> Path:
    """Make the home, point this process and its children at it, and return it."""
    home = (settings.data_dir / "dagster").absolute()
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(CONFIG, home / "dagster.yaml")
    os.environ["DAGSTER_HOME"] = str(home)
    return home

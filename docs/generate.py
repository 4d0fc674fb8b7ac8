"""Writes what follows from the code: `.env.example`. `make docs` runs it; a test fails when a file is out of date."""

from collections.abc import Iterator
from pathlib import Path

from pydantic_core import PydanticUndefined

from warehouse.settings import DATA, Settings

REPO = Path(__file__).parent.parent


def env_example() -> str:
    """Every setting with its description and default."""
    head = "# Copy to .env; every command reads it, and real environment variables win. These are the defaults.\n"
    return head + "\n".join(_setting_lines()) + "\n"


def _setting_lines() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, PydanticUndefined) else field.default
        if isinstance(default, Path) and default.is_relative_to(DATA):
            default = f"warehouse/data/{default.name}"
        yield f"\n# {field.description}\n# FAIRBOARD_{name.upper()}={default}"


FILES = {REPO / ".env.example": env_example}

if __name__ == "__main__":
    for path, content in FILES.items():
        path.write_text(content(), encoding="utf-8")

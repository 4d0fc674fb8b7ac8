"""Why events cannot be sealed: noted by the sealer and by who watches it, read by the workers for `/readyz`.

What does not belong here: reasons to accept nothing (`pressure.py`). What is accepted meanwhile stays in the journal.
"""

from pathlib import Path
from typing import Final

_FILE: Final = "sealer.trouble"


def note(journal: Path, reason: str) -> None:
    """Say why; a sentence for everyone, without paths."""
    staged = journal / f"{_FILE}.new"
    staged.write_text(reason, encoding="utf-8")
    staged.rename(journal / _FILE)


def clear(journal: Path) -> None:
    """Everything that was ready has been sealed."""
    (journal / _FILE).unlink(missing_ok=True)


def read(journal: Path) -> str:
    """The reason, or nothing where all is well."""
    try:
        return (journal / _FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""

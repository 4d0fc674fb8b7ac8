"""The documents say what is: links lead somewhere, commands and settings exist."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from docs.generate import FILES
from pipelines.cli import app
from warehouse.settings import Settings

REPO = Path(__file__).parent.parent
DOCUMENTS = sorted([*REPO.glob("*.md"), *REPO.glob("docs/**/*.md"), *REPO.glob("examples/**/*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPO)))
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", document.read_text(encoding="utf-8"))
    missing = [link for link in links if not (document.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPO)))
def test_every_command_that_is_named_exists(document: Path) -> None:
    named = set(re.findall(r"`fairboard ([a-z-]+)", document.read_text(encoding="utf-8")))
    assert named <= set(get_command(app).commands)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPO)))
def test_every_make_target_that_is_named_exists(document: Path) -> None:
    makefile = (REPO / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", document.read_text(encoding="utf-8"))) <= targets


def test_the_readme_names_every_command() -> None:
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`fairboard ([a-z-]+)", readme)) == set(get_command(app).commands)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_generated_files_are_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == FILES[path](), "run `make docs`"


def test_settings_in_documents_exist() -> None:
    text = "\n".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    assert set(re.findall(r"FAIRBOARD_([A-Z_]*[A-Z])", text)) <= {name.upper() for name in Settings.model_fields}

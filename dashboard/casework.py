"""A player's cases, as a reviewer works on them: what happened; then who looks at it, what is said, and how it ends.

What does not belong here: the evidence, which the page shows first, and what a case is (`warehouse/cases.py`).
"""

from collections.abc import Callable

import sqlalchemy as sa
import streamlit as st

from dashboard import controls
from warehouse import cases, verdicts
from warehouse.cases import Case
from warehouse.database import open_database, reading
from warehouse.enforcement import enforce
from warehouse.errors import FairboardError
from warehouse.settings import Settings
from warehouse.verdicts import Decision

REVIEWER = "reviewer"


def show_cases(settings: Settings, player: str) -> None:
    """The player's cases, the newest first; whatever is done to one has the reviewer's name."""
    with reading(settings) as connection:
        found = cases.find(connection, every=True, player_id=player)
        notes = {case.id: cases.notes_of(connection, case.id) for case in found} if connection is not None else {}
        given = verdicts.history(connection, player) if connection is not None else []
    if not found:
        return
    st.subheader("Cases")
    st.text_input("Your name", key=REVIEWER, help="It stands beside whatever you do to a case.", width=360)
    for case in found:
        state = f"open, with {case.assigned_to or 'nobody yet'}" if case.is_open else "closed"
        with st.expander(f"Case {case.id}: {controls.as_text(state)}", expanded=case.is_open):
            for note in notes[case.id]:
                said = f"{note.noted_at:%Y-%m-%d %H:%M} {note.noted_by} {note.action}: {note.text}"
                st.markdown(controls.as_text(said))
            _comment(settings, case)
            if case.is_open:
                _assign(settings, case)
                _decide(settings, case)
            elif any(verdict.case_id == case.id and verdict.reversed_at is None for verdict in given):
                _reverse(settings, case)


def _comment(settings: Settings, case: Case) -> None:
    with st.form(f"comment-{case.id}", clear_on_submit=True, border=False):
        text = st.text_input("Remark", key=f"remark-{case.id}")
        if st.form_submit_button("Comment"):
            _change(settings, lambda connection: cases.comment(connection, case.id, text, by=_reviewer()))


def _assign(settings: Settings, case: Case) -> None:
    with st.form(f"assign-{case.id}", border=False):
        to = st.text_input("Who looks at it", case.assigned_to or "", key=f"assignee-{case.id}")
        if st.form_submit_button("Assign"):
            _change(settings, lambda connection: cases.assign(connection, case.id, to, by=_reviewer()))


def _decide(settings: Settings, case: Case) -> None:
    with st.form(f"decide-{case.id}", border=False):
        decision = Decision(st.radio("How it ends", [str(one) for one in Decision], key=f"decision-{case.id}", horizontal=True))
        why = st.text_input("Why", key=f"why-{case.id}", help="For whoever asks later.")
        left, right = st.columns(2)
        first = left.date_input("Off the boards from", None, key=f"from-{case.id}", format="YYYY-MM-DD")
        until = right.date_input("Back on", None, key=f"until-{case.id}", format="YYYY-MM-DD", help="Empty: for good.")
        if st.form_submit_button("Decide"):
            _change(
                settings,
                lambda connection: cases.decide(
                    connection, case.id, decision, by=_reviewer(), why=why, excluded_from=first, excluded_until=until
                ),
            )


def _reverse(settings: Settings, case: Case) -> None:
    with st.form(f"reverse-{case.id}", border=False):
        why = st.text_input("Why the verdict is taken back", key=f"reversal-{case.id}")
        if st.form_submit_button("Reverse"):
            _change(settings, lambda connection: cases.reverse(connection, case.id, by=_reviewer(), why=why))


def _reviewer() -> str:
    return str(st.session_state.get(REVIEWER, ""))


def _change(settings: Settings, change: Callable[[sa.Connection], object]) -> None:
    """Do it, and have the boards follow; then the page shows what is. What is refused is said, and nothing was changed."""
    try:
        with st.spinner("The boards follow"), open_database(settings).begin() as connection:
            change(connection)
        enforce(settings)
    except FairboardError as error:
        st.error(controls.as_text(str(error)))
        return
    st.rerun()

"""The dashboard: `streamlit run dashboard/app.py`. Navigation, and the one place where an error becomes a message."""

from pathlib import Path

import duckdb
import streamlit as st

from dashboard import grids
from warehouse.errors import FairboardError
from warehouse.privacy import keep_private

HERE = Path(__file__).parent
PAGES = (
    ("overview", "Overview", ":material/monitoring:"),
    ("progression", "Progression", ":material/trending_up:"),
    ("metrics", "Metrics", ":material/query_stats:"),
    ("fairness", "Fairness", ":material/balance:"),
    ("leaderboards", "Leaderboards", ":material/leaderboard:"),
    ("sql", "SQL", ":material/database:"),
)

keep_private()
st.set_page_config(page_title="Fairboard", page_icon=str(HERE / "favicon.png"), layout="wide")
grids.hide_unguarded_downloads()
st.logo(str(HERE / "logo.svg"), size="large")
page = st.navigation(
    [
        st.Page(f"app_pages/{name}.py", title=title, icon=icon, url_path=name, default=name == "overview")
        for name, title, icon in PAGES
    ],
    position="top",
)
try:
    page.run()
except (FairboardError, duckdb.Error) as error:
    st.error("This page cannot be shown.", icon=":material/error:")
    st.code(str(error), language=None, wrap_lines=True)

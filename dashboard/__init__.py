"""The analysts' Streamlit pages."""

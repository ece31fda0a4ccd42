"""Figures of a report: plain data and layout, as plotly's JavaScript takes them."""

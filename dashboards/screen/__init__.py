"""Plotly versions of the figures, for the screen."""

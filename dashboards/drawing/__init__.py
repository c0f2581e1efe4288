"""Shared drawing code: colours, styles and text for Plotly (screen) and matplotlib (paper)."""

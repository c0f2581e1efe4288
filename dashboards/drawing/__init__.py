"""What figures share when they are drawn: colours, styles and text for Plotly (screen) and matplotlib (paper)."""

"""The Dash app and the paper figures, drawn only from results and caches."""

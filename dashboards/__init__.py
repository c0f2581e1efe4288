"""What people look at: the Dash app and the paper figures, drawn from results and caches only."""

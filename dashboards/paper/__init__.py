"""matplotlib versions of the figures, for papers: vector, readable in grey, the same bytes every time."""

"""Listening studies: their design, their folder, and the answers of listeners."""

"""Patching maps: arms, runs, impacts and screening."""

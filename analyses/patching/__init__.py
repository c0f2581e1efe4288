"""Patching maps: arms, the runs behind them, impacts and what screens them."""

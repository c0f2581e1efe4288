"""Tidy tables of the numbers that figures show: one row a drawn value, the same for screen, paper and CSV."""

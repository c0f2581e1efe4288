"""Tidy tables of the numbers in a study's results: one row a number, the same for screen, paper and CSV."""

"""Tidy tables of the numbers in a study's results, shared by screen, paper and CSV."""

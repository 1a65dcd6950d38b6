"""Comparisons: a grid of runs, and what their differences allow to be said."""

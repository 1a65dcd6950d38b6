"""ActFocus in the trainers that people already run, from the same `focus` functions."""

"""The report of a run: one HTML page with what came of it, why, and what it cost."""

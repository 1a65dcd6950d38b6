"""The token viewer: a run directory as one HTML page, and that page served while the run goes on."""

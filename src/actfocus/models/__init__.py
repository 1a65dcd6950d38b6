"""Models: loading, the frozen reference, the critic, and the agent `tiny`."""

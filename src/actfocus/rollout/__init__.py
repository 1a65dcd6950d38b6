"""Rollouts: episodes sampled from the policy, recorded token by token."""

"""Rewards of any model's rollouts: `files` reads and writes on all cores, `scorer` scores on one core."""

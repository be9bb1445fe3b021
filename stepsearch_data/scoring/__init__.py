"""Rewards of rollouts that anybody made: `files` reads and writes them on all cores, `scorer` is what one core does."""

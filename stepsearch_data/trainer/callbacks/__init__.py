"""What a person sees of a training while it goes on: a live table, sample rollouts, signs of collapse, trackers."""

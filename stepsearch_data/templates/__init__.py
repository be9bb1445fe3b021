"""The text of a trajectory, written once: for the store's rollouts, for exports and for training.

`examples` is what is written, `template` writes it, `files` reads templates; `musique`, `paper` and `tools` are ours.
"""

"""A store's trajectories in the file formats of trainers.

`reading` makes examples of a store, which a template words (`templates`); `rl`, `sft` and `preferences` hold one small
function a format; `formats` lists them; `files` and `export` write them.
"""

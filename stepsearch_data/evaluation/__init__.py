"""A policy is asked questions: `setup` finds all that it takes, `evaluate` is the loop, `measure` the judge.

A policy is a checkpoint or an endpoint; questions come from a store or from files.
"""

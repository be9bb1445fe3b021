"""What a search round shows, and the trajectory that a template words."""

from stepsearch_data.stages.rollout.shown import TEMPLATE, documents, example, merit, says, shows_gold

__all__ = ["TEMPLATE", "documents", "example", "merit", "says", "shows_gold"]

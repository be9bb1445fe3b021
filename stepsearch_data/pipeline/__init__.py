"""How stages run: declarations, recipes, the store, configuration and the seams to the outside."""

"""How stages run: declarations, fingerprints, the store, configuration and the seams to the outside."""

"""What can be found in a corpus without a model: which passages name which titles, and what questions can join."""

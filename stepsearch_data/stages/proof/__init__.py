"""Whether a question needs its hops: signals that need no model, and how readings become a verdict."""

"""Language models: the interface to one, and a client of any OpenAI-compatible server."""

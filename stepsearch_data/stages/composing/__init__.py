"""Questions from chains: the chain with its texts, what is checked of a question, and templates for demonstrations."""

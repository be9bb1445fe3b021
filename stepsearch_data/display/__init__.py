"""What the verbs print: data on stdout, as tables for people or JSON for programs; a file for each of `verbs`."""

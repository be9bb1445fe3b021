"""The verbs of the command line, a file for each part of the work; `options` are those that several share."""

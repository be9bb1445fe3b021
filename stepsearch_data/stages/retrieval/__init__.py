"""What the stage `retrieve` asks and finds, in files: a build may have ten million queries."""

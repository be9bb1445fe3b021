"""The gates of the stage `quality`: their settings and checks, duplicates, evaluation data, and splits."""

"""What every other package may use: errors, progress, files, texts. It imports nothing of ours."""

"""The commands that follow what was queued."""

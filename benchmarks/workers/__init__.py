"""The workers that are measured beside ours, each with the same tasks."""

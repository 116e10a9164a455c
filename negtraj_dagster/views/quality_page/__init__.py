"""The quality page of a task."""

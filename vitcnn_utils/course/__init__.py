"""The session for a class: checks for the exercises, and the notebooks made from their one source."""

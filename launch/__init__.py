"""Scripts that chain the stages, one a place to run them, and what reports on a run."""

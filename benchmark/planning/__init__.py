"""What a run will compute and cost. Imports executors, scheduling, experiments, store."""

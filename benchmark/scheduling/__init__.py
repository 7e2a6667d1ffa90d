"""Scheduling: jobs, retries, progress, records. Imports experiments, store, registry."""

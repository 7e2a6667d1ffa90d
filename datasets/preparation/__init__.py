"""Prepared datasets: read once, written to the cache, read from there. Imports all beside."""

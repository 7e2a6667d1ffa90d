"""Prepared datasets: read once, written to the cache, read from there. Imports base, io, splits,
transforms and layouts.
"""

"""Weights in the formats of other libraries. Imports all of the engine."""

"""Frozen and adapted feature extractors, memory banks. Imports engine.runtime."""

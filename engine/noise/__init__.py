"""Noise fields: Gaussian, simplex, pyramid, coarse. Imports engine.runtime."""

"""Reverse processes: solvers, guidance, inpainting, continuous batching. Imports diffusion and
below."""

"""Autoencoders that code samples for latent diffusion, and their training. Imports networks and
below."""

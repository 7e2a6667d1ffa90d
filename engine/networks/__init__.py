"""Neural networks: U-Nets, autoencoders, classifiers. Imports diffusion, transforms and below."""

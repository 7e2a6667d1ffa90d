"""The training loop, optimizer state and data loading. Imports engine.runtime."""

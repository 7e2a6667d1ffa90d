"""From names to classes, and the fingerprint of their code. Imports methods.base and the engine."""

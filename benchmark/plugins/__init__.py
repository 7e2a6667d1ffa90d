"""For plugin authors: the contract as checks, and a template. Imports registry and engine."""

"""For plugin authors: conformance checks and a template. Imports registry and engine."""

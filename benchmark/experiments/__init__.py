"""One experiment from data to record. Imports registry, store, evaluation, figures."""

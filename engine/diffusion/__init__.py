"""Schedules, forward processes, denoisers and their losses. Imports noise, training, features."""

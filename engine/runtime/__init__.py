"""Devices, named random streams, teams of processes, out-of-memory recovery. Imports nothing of
adbench."""

"""Devices, named random streams, distributed processes, out-of-memory recovery. Imports nothing of
adbench."""

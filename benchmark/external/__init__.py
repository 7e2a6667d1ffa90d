"""Scores and maps as files by the keys of samples: those of another program under the protocol, and
those of a run for other programs."""

"""Leaderboards as text, LaTeX and files. Imports leaderboard, figures and evaluation; no torch."""

"""The page that shows a leaderboard. Imports leaderboard, figures and evaluation; no torch."""

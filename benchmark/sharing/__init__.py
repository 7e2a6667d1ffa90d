"""Sharing results and weights: folders of results merged, leaderboards published as sites, study
files, and weights of others that become methods here."""

"""Records and the tables made from them. Imports evaluation and registry; no torch, no store."""

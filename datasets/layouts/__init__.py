"""File layouts that several datasets share. Imports base, io and splits."""

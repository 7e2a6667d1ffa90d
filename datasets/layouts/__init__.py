"""Finding the files of layouts that several datasets share. Imports base, io and splits."""

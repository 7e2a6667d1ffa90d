"""Detection metrics on plain arrays, usable by anyone. Imports numpy, scipy and numba only.

Every function takes numpy arrays (reconstruction.py takes torch tensors) and knows nothing of
methods, datasets or files. Scores are higher for what is more anomalous; labels and masks are
boolean, True for abnormal. A metric that is undefined (nothing abnormal, or nothing normal) is
None for one number and NaN within an array.
"""

"""Readers of file formats: NIfTI, images, IDX, HDF5, CSV. Imports datasets.base."""

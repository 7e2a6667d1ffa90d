"""From what a file stores to samples: slices, crops, tiles. Imports datasets.base and io."""

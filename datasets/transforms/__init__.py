"""From stored values to samples: slices, crops, tiles, random fields. Imports base and io."""

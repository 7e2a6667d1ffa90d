"""Images of samples, reconstructions and anomaly maps. Imports evaluation and store."""

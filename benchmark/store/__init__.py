"""The artifact store: cache keys, checksums, leases, garbage collection. Imports fsync only."""

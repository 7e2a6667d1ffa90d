"""adbench: train, sweep and compare diffusion models that find anomalies."""

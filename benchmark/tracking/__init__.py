"""Experiment trackers: parameters, learning curves, metrics, pictures and records of experiments
for TensorBoard, MLflow and Weights & Biases."""

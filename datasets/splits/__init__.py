"""Assignment of cases to train, calibration, validation and test. Imports datasets.base."""

"""How good predictions are: calibration, decisions, metrics, intervals; no torch."""

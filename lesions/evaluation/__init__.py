"""Predictions on test photos, their metrics, intervals and comparison."""

"""Measurements, as programs that anyone can run."""

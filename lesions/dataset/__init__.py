"""The dataset: diagnoses, the metadata table, splits, balancing, decoded photos."""

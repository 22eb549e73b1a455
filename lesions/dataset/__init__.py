"""The dataset: its description, the metadata table, splits, balancing, decoded photos."""

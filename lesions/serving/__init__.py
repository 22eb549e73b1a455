"""A trained model in use: predict, export, demo."""

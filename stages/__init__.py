"""The stages of the pipeline: one command line each, `python -m stages.<name>` from the root."""

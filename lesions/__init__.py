"""Train and compare networks that classify skin lesions; the folders follow the pipeline."""

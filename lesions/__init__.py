"""Train and compare networks that classify photos; the folders follow the pipeline."""

"""Where photos come from: the synthetic sample, Dataverse, Kaggle, a folder."""

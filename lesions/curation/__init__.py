"""Looking after the data and the table of networks: near-duplicates, new datasets, forecasts."""

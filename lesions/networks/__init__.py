"""The networks, how they are fed, and what a trained one is stored in."""

"""What is measured, as programs anyone can run."""

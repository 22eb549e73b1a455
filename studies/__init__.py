"""What is asked of the data: pitfalls, a planted shortcut, seeds."""

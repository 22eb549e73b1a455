"""What people look at: model cards, pictures, the report."""

"""What the commands beside `run` share and show."""

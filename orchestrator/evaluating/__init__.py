"""Measuring a finished suite again: on other text, and spliced into its model."""

"""Runs held against each other: what differs, and what came of it."""

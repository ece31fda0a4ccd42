"""What is known of a run: read from its files, kept as rows of a database that is only a cache."""

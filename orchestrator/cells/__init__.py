"""What trains: a producer and the transcoders that it feeds, in one process."""

"""Cells as Ray actors. The only files of the project that import ray."""

"""From text to the rows of a step: documents, tokens, holdout, schedule."""

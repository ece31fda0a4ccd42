"""What a model says when transcoders take the place of the tensors that they predict."""

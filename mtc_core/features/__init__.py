"""What each latent of a transcoder responds to, and what it does: from activations and weights."""

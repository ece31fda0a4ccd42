"""What a manifest comes to on this machine, before anything is loaded."""

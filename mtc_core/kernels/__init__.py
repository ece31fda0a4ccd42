"""What of a training step depends on the machine: plain torch, and faster forms of the same."""

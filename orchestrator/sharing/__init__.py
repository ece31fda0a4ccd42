"""A finished suite for others: in the formats of other tools, on the Hub, on W&B."""

"""The way from producers to the cells that they feed: who may have which rows, and when."""

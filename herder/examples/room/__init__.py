"""A chat room over HTTP, which several programs can join: `herd room`. Knows nothing of a herd."""

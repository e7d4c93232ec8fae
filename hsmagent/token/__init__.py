"""The daemon's side of tokens: which there are, who is logged in, whose turn it is."""

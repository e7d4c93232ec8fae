"""`hsmagent doctor`: finds what is wrong with the set-up, and says the remedy."""

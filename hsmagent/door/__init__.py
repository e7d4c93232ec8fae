"""The one door: every private-key operation passes policy, question, login and record."""

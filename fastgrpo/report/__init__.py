"""Runs to look at: one page that needs no network, the same live from a local server, and two runs compared in the terminal."""

"""Figures and tables of arXiv:2503.20783 by one command each: small YAML files of arms and claims, and the engine that runs them."""

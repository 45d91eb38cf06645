"""What base models do before any training: whether they answer, what they can find, whether they reflect (arXiv:2503.20783, section 2)."""

"""fastgrpo: exact and fast R1-Zero-like reinforcement learning of language models (Dr. GRPO, arXiv:2503.20783).

Importing it is cheap; torch and transformers are loaded when a run is built.
"""

__version__ = "0.1.0"

"""How long each sampled token is in a response's text, so that a page can shade it token by token.

What would surprise: a text was decoded as a whole, and tokens decoded one by one need not add up to it (a character may take several
tokens). Pieces are used only where they do add up; a token that ends no character has length 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

REPLACEMENT = "\ufffd"  # what a decoder writes for bytes that are no character yet
FILE = "tokenizer.json"


class Pieces:
    """Token lengths by the tokenizer of a run: a checkpoint's, or its model's where that is a directory. `why_not` says what is missing."""

    def __init__(self, run: Path, model: str):
        places = [*(run / "checkpoints" / name for name in ("best", "latest")), *sorted((run / "checkpoints").glob("step_*")), Path(model)]
        found = next((place / FILE for place in places if (place / FILE).is_file()), None)
        self.tokenizer, self.why_not, self._alone = None, "", {}
        if found is None:
            self.why_not = f"the run has no checkpoint with a {FILE} yet"
            return
        try:
            from tokenizers import Tokenizer

            self.tokenizer = Tokenizer.from_file(str(found))
        except Exception as error:  # tokenizers raises plain Exception for a file it cannot read
            self.why_not = f"{found} cannot be used: {error}"

    def lengths(self, token_ids: Sequence[int], text: str) -> list[int] | None:
        """Length of each token's text in UTF-16 units, as JavaScript counts; None where the tokens do not add up to `text`."""
        if self.tokenizer is None:
            return None
        cut = self._by_vocabulary(token_ids, text) or self._by_stream(token_ids, text)
        if cut is None or text.isascii():
            return cut
        units, position = [], 0
        for length in cut:
            part = text[position : position + length]
            units.append(len(part) + sum(character > "\uffff" for character in part))
            position += length
        return units

    def _by_vocabulary(self, token_ids: Sequence[int], text: str) -> list[int] | None:
        """Each token as it decodes alone: quick, and right for nearly all texts."""
        lengths, position = [], 0
        for token in token_ids:
            piece = self._alone.get(token)
            if piece is None:
                piece = self._alone[token] = self.tokenizer.decode([token], skip_special_tokens=True)
            if REPLACEMENT in piece:
                return None
            if not text.startswith(piece, position):
                piece = " " + piece  # some tokenizers drop a space at the beginning
                if not text.startswith(piece, position):
                    return None
            lengths.append(len(piece))
            position += len(piece)
        return lengths if position == len(text) else None

    def _by_stream(self, token_ids: Sequence[int], text: str) -> list[int] | None:
        """Token by token with what came before: slow, and right where characters take several tokens."""
        from tokenizers.decoders import DecodeStream

        stream, lengths, position = DecodeStream(skip_special_tokens=True), [], 0
        for token in token_ids:
            piece = stream.step(self.tokenizer, token) or ""
            if not text.startswith(piece, position):
                return None
            lengths.append(len(piece))
            position += len(piece)
        if lengths and text[position:].strip(REPLACEMENT) == "":  # bytes at the end that are no character: a truncated response
            lengths[-1] += len(text) - position
            position = len(text)
        return lengths if position == len(text) else None

"""Windows lose no token and repeat no target; updates take every window once an epoch, in an order that only the seed decides."""

import random
from collections import Counter
from itertools import islice

import pytest
from conftest import byte_tokenizer

from fastgrpo.ranks import Ranks
from fastgrpo.windows import count_updates, draw_updates, encode, make_windows

TEXTS = [("What?\n", "That."), ("x",), ("a longer text than the others ",), ("é",)]


class PartOf(Ranks):
    """One of several ranks in this process: remembers what it gives, and gets what all gave before."""

    def gather(self, mine):
        return [*self.group, mine] if self.rank == self.size - 1 else self.group.append(mine) or [mine]


@pytest.mark.parametrize("context", [1, 2, 5, 12, 100])
def test_every_token_but_the_first_of_a_text_is_predicted_once(context):
    tokenizer = byte_tokenizer()
    windows = make_windows(TEXTS, tokenizer, context, Ranks())
    found, ids = [windows[i] for i in range(len(windows))], [list(text) for text in encode(TEXTS, tokenizer)]
    assert [token for window in found for token in window[1:]] == [token for text in ids for token in text[1:]]
    assert max(len(window) for window in found) <= context + 1 and [len(window) - 1 for window in found] == windows.lengths
    assert windows.predicted == sum(len(text) - 1 for text in ids) and windows.texts == 4
    assert windows.cut == sum(len(text) > context + 1 for text in ids)
    rest = iter(found)
    for text in ids:  # the first input of a window is the last target of the one before
        own = [next(rest)]
        while sum(len(window) - 1 for window in own) < len(text) - 1:
            own.append(next(rest))
            assert own[-1][0] == own[-2][-1]
        assert own[0][0] == text[0]


def test_parts_are_tokenised_apart_and_end_once(tmp_path):
    (ids,) = encode([("ab", "c")], byte_tokenizer())
    assert byte_tokenizer().decode(ids) == "abc<|endoftext|>" and ids[-1] == 256 and ids.count(256) == 1


@pytest.mark.parametrize("size", [2, 3, 5])
def test_ranks_share_the_tokenising(size):
    given: list = []
    for rank in range(size):
        windows = make_windows(TEXTS, byte_tokenizer(), 7, PartOf(rank, size, given))
    alone = make_windows(TEXTS, byte_tokenizer(), 7, Ranks())
    assert (windows.tokens == alone.tokens).all() and (windows.starts, windows.lengths) == (alone.starts, alone.lengths)


def test_updates_take_every_window_once_an_epoch_in_nearly_equal_parts():
    rng = random.Random(3)
    for _ in range(200):
        lengths = [rng.randint(1, 9) for _ in range(rng.randint(1, 40))]
        epochs, tokens = rng.randint(1, 4), rng.randint(9, 60)
        windows = type("Lengths", (), {"predicted": sum(lengths)})
        count = count_updates(windows, epochs, tokens)
        updates = list(draw_updates(lengths, epochs, 0, count))
        assert len(updates) == count and all(updates)
        assert Counter(window for own in updates for window in own) == dict.fromkeys(range(len(lengths)), epochs)
        flat = [window for own in updates for window in own]
        assert all(sorted(flat[k : k + len(lengths)]) == list(range(len(lengths))) for k in range(0, len(flat), len(lengths)))
        mean = epochs * sum(lengths) / count
        assert all(abs(sum(lengths[window] for window in own) - mean) < 9 for own in updates)


def test_the_order_is_a_function_of_seed_and_epoch():
    lengths = [1] * 50
    one, other = (list(draw_updates(lengths, 2, seed, 10)) for seed in (0, 1))
    assert one == list(draw_updates(lengths, 2, 0, 10)) != other
    assert one[:5] != one[5:] and list(islice(draw_updates(lengths, 2, 0, 10), 4, None)) == one[4:]

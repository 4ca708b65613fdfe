"""Names that never overwrite each other."""

import itertools
import unicodedata

import numpy as np

from basicsr_plugins.core.unique_names import UniqueNames


def key(name):
    return unicodedata.normalize("NFC", name).casefold()


def test_all_orders_of_names_that_ask_for_each_others_way_out():
    wanted = ["a.png", "A.PNG", "a_2.png", "a_2_2.png", "a.png/b.png", "a", "é.png", "e\u0301.png", "straße", "STRASSE"]
    for order in itertools.islice(itertools.permutations(wanted), 0, None, 9973):
        names = UniqueNames()
        taken = [names.take(name) for name in order]
        assert len({key(name) for name in taken}) == len(wanted)
        folders = {key("/".join(name.split("/")[:depth])) for name in taken for depth in range(1, name.count("/") + 1)}
        assert folders.isdisjoint(map(key, taken))  # a file is no folder
        again = UniqueNames()
        assert [again.take(name) for name in order] == taken


def test_random_questions():
    rng = np.random.default_rng(0)
    for _ in range(200):
        names = UniqueNames(["x"])
        questions = [["".join(rng.choice(list("aA_2./"), 3)).strip("/") or "x" for _ in range(2)] for _ in range(20)]
        taken = [names.take(*question) for question in questions]
        assert len({key(name) for name in taken} | {"x"}) == 21

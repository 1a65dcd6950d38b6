"""Search, promises.

1. The ranking is Lucene's BM25, recomputed here in float64 from its formula; of equal scores the earlier
   product comes first.
2. At most 50 hits, all of which share a word with the query; a query that says nothing finds nothing.
3. The index is built once for a catalogue. A damaged one is built anew, and where nothing can be kept the
   search works all the same.
4. What is kept holds no pickle.
"""

import errno
import itertools
import json
import math
import os
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import Stemmer
from bm25s.stopwords import STOPWORDS_EN

from actfocus.envs.webshop.catalogue import Catalogue, shipped_catalogue
from actfocus.envs.webshop.products import read_product
from actfocus.envs.webshop.search import HITS, SearchEngine
from tests.envs.webshop.records import item

K1, B = 0.9, 0.4


class Oracle:
    """BM25 by the book, document by document."""

    def __init__(self, products):
        self.stemmer = Stemmer.Stemmer("porter")
        self.documents = [Counter(self.words(self.text(product))) for product in products]
        lengths = [document.total() for document in self.documents]
        self.norms = [K1 * (1 - B + B * length / (sum(lengths) / len(lengths))) for length in lengths]
        self.containing = Counter(word for document in self.documents for word in document)

    @staticmethod
    def text(product):
        options = [word for name, values in product.options.items() for word in (name, *values)]
        return " ".join([product.title, product.description, *product.bullets[:1], *options])

    def words(self, text):
        found = [word for word in re.findall(r"\w+", text.lower()) if re.fullmatch(r"\w+", word)]
        return self.stemmer.stemWords([word for word in found if word not in STOPWORDS_EN])

    def parts(self, query):
        """For each product that shares a word with the query, what each word adds to its score."""
        words = self.words(query)
        found = {}
        for index, (document, norm) in enumerate(zip(self.documents, self.norms, strict=True)):
            if any(word in document for word in words):
                found[index] = tuple(
                    self.rarity(word) * document[word] / (document[word] + norm) if word in document else 0.0
                    for word in words
                )
        return found

    def rarity(self, word):
        n = self.containing[word]
        return math.log(1 + (len(self.documents) - n + 0.5) / (n + 0.5))


def assert_ranked(hits, parts):
    """`hits` is a best-first order of the products in `parts`, cut at 50, up to the rounding of float32."""
    assert len(hits) == len(set(hits)) == min(HITS, len(parts))
    assert set(hits) <= set(parts)
    score = {index: sum(part) for index, part in parts.items()}
    slack = 1e-5 * max(score.values(), default=0)
    for better, worse in itertools.pairwise(hits):
        assert score[better] > score[worse] - slack
        if parts[better] == parts[worse]:
            assert better < worse
    for left_out in set(parts) - set(hits):
        assert score[left_out] < score[hits[-1]] + slack
        if parts[left_out] == parts[hits[-1]]:
            assert left_out > hits[-1]


@pytest.fixture(scope="module")
def products(shipped):
    return shipped.catalogue.products


@pytest.fixture(scope="module")
def oracle(products):
    return Oracle(products)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ACTFOCUS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def small():
    return shipped_catalogue(5)


def products_of(*titles):
    records = [item(f"b{n}", name=t, full_description="", small_description=[]) for n, t in enumerate(titles)]
    return tuple(read_product(record | {"customization_options": ""}, None, None) for record in records)


def no_building(*_):
    raise AssertionError("the index is built again")


# 1. Ranking


def queries(products):
    rng = np.random.default_rng(5)
    words = sorted({word for product in products for word in product.title.lower().split()})
    yield from (product.title for product in products[::7])
    yield from sorted({product.query for product in products})
    yield from (product.instruction.text for product in products[3::11])
    yield from (" ".join(rng.choice(words, size)) for size in (1, 2, 3, 5) for _ in range(25))
    yield from ("chair chair chair table", "chair table table table", "Color: RED!", "the red and the blue")


def test_ranking_is_lucenes(shipped, products, oracle):
    full = 0
    for query in queries(products):
        parts = oracle.parts(query)
        assert_ranked(shipped.engine.search(query), parts)
        full += len(parts) > HITS
    assert full > 20, "queries with more than 50 hits were among them"


def test_description_first_bullet_and_options_are_searched_and_no_more():
    fields = {
        "full_description": "alpha",
        "small_description": ["beta", "gamma"],
        "customization_options": {"delta": [{"value": "epsilon"}]},
        "product_category": "zeta",
        "query": "eta",
    }
    product = read_product(item(name="theta", **fields), {"attributes": ["iota"]}, None)
    engine = SearchEngine.build([*products_of("other", "another"), product])
    found = {word: engine.search(word) == [2] for word in ["alpha", "beta", "delta", "epsilon", "theta"]}
    assert all(found.values()), found
    for word in ["gamma", "zeta", "eta", "iota", "b000000001", "12.99"]:
        assert engine.search(word) == []


def test_of_equals_the_earlier_comes_first():
    engine = SearchEngine.build(products_of(*["red chair", "blue chair", "red chair long title"] * 40))
    equal = [index for index in range(120) if index % 3 < 2]
    assert engine.search("chair") == equal[:HITS]
    assert engine.search("red") == [*range(0, 120, 3), *range(2, 32, 3)]


@pytest.mark.parametrize(
    "query", ["CHAIRS", "chair", "Chair!", "(chairs)", " chair\t", "the chairs", "<chair>"]
)
def test_case_number_and_marks_do_not_matter(query):
    assert SearchEngine.build(products_of("a table", "two chairs", "a lamp")).search(query) == [1]


# 2. Hits


@pytest.mark.parametrize(
    "query", ["", " ", "the and of", "xyzzy", "!?", "☆", "\0", "the xyzzy", "[", "\ud800"]
)
def test_what_says_nothing_finds_nothing(shipped, query):
    assert shipped.engine.search(query) == []


def test_hits_share_a_word_and_are_plain_ints(shipped, products, oracle):
    hits = shipped.engine.search("steel color cotton xyzzy")
    assert len(hits) == HITS
    assert all(type(hit) is int for hit in hits)
    for hit in hits:
        assert {"steel", "color", "cotton"} & set(oracle.documents[hit])


def test_an_unknown_word_changes_nothing(shipped):
    assert shipped.engine.search("red xyzzy chair") == shipped.engine.search("red chair") != []


def test_a_long_query(shipped):
    assert len(shipped.engine.search("red chair " * 5_000)) == HITS


@pytest.mark.parametrize("titles", [(), ("",), ("the", ""), ("☆", "!")])
def test_a_catalogue_without_words(own_cache, titles):
    catalogue = Catalogue("x", products_of(*titles), "0" * 64)
    for engine in (SearchEngine.build(catalogue.products), *(SearchEngine.open(catalogue) for _ in range(2))):
        assert engine.search("chair") == engine.search("") == []


def test_a_product_without_words_among_others():
    assert SearchEngine.build(products_of("", "chair", "the")).search("chair the") == [1]


# 3. The kept index


def folder_of(cache):
    (folder,) = (cache / "webshop").iterdir()
    return folder


QUERIES = ["steel bottle", "lamp", "red", "cotton shirt", "color", "xyzzy"]


def found(engine):
    return [engine.search(query) for query in QUERIES]


def test_the_index_is_built_once(own_cache, small, monkeypatch):
    built = found(SearchEngine.open(small))
    assert any(built)
    monkeypatch.setattr(SearchEngine, "build", no_building)
    assert found(SearchEngine.open(small)) == built == found(SearchEngine.open(replace(small, name="other")))


def test_kept_and_built_index_rank_alike(own_cache, shipped, products):
    SearchEngine.open(shipped.catalogue)
    kept, built = SearchEngine.open(shipped.catalogue), SearchEngine.build(products)
    for query in list(queries(products))[::3]:
        assert kept.search(query) == built.search(query)


def test_another_catalogue_has_an_index_of_its_own(own_cache, small):
    other = shipped_catalogue(6)
    assert other.digest != small.digest
    for _ in range(2):
        assert found(SearchEngine.open(small)) == found(SearchEngine.build(small.products))
        assert found(SearchEngine.open(other)) == found(SearchEngine.build(other.products))
    assert len(list((own_cache / "webshop").iterdir())) == 2


def test_catalogues_whose_digests_begin_alike_are_not_confused(own_cache, small):
    other = replace(shipped_catalogue(6), digest=small.digest[:16] + "0" * 48)
    SearchEngine.open(small)
    assert found(SearchEngine.open(other)) == found(SearchEngine.build(other.products))
    assert found(SearchEngine.open(small)) == found(SearchEngine.build(small.products))


FILES = [
    *("data.csc.index.npy", "indices.csc.index.npy", "indptr.csc.index.npy"),
    *("vocab.index.json", "params.index.json", "key.json"),
]


def empty(data):
    return b""


def truncated(data):
    return data[: len(data) // 2]


def zeroed(data):
    """The header of an array, and zeros: what a power cut can leave."""
    return data[:128] + bytes(len(data) - 128)


def gone(data):
    return None


def a_list(data):
    return b"[1, 2]"


def a_zip(data):
    return b"PK\x03\x04" + data[4:]


def binary(data):
    return bytes(range(256)) * 4


@pytest.mark.parametrize("damage", [empty, truncated, zeroed, gone, a_list, a_zip, binary])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_index_is_built_anew(own_cache, small, monkeypatch, name, damage):
    right = found(SearchEngine.open(small))
    path = folder_of(own_cache) / name
    data = damage(path.read_bytes())
    assert data != path.read_bytes()
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    assert found(SearchEngine.open(small)) == right
    monkeypatch.setattr(SearchEngine, "build", no_building)
    assert found(SearchEngine.open(small)) == right, "and kept again"


@pytest.mark.parametrize("place", ["file/cache", "file", "/proc/nowhere"])
def test_where_nothing_can_be_kept(tmp_path, monkeypatch, small, place):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ACTFOCUS_CACHE", str(tmp_path / place))
    for _ in range(2):
        assert found(SearchEngine.open(small)) == found(SearchEngine.build(small.products))


@pytest.mark.parametrize("step", ["os.replace", "tempfile.mkdtemp", "numpy.save"])
def test_a_full_disk_leaves_nothing_behind(own_cache, small, monkeypatch, step):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(step, full)
        assert found(SearchEngine.open(small)) == found(SearchEngine.build(small.products))
    assert list((own_cache / "webshop").iterdir()) == []
    SearchEngine.open(small)
    assert len(list((own_cache / "webshop").iterdir())) == 1


# 4. What is kept


def test_no_pickle_is_kept(own_cache, small):
    SearchEngine.open(small)
    kept = sorted(folder_of(own_cache).iterdir())
    assert [path.name for path in kept] == sorted(FILES)
    for path in kept:
        if path.suffix == ".npy":
            assert np.load(path, allow_pickle=False).dtype.kind in "if"
        else:
            json.loads(path.read_text(encoding="utf-8"))

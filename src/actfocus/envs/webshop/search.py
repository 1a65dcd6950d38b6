"""Search: BM25 as Lucene computes it, over what a product's record says of it.

Source of the settings: WebShop's index (Lucene through Pyserini), whose defaults are k1 = 0.9 and b = 0.4.
"""

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import bm25s
import numpy as np
import Stemmer

from actfocus.cache import cache_folder, file_sha256
from actfocus.envs.webshop.products import Product

if TYPE_CHECKING:  # an import is checked against the pages, which search
    from actfocus.envs.webshop.catalogue import Catalogue

HITS = 50
"""Products that a search finds at most."""

_K1, _B = 0.9, 0.4
_FORMAT = 1
"""Counted up when the texts or their splitting change."""


class SearchEngine:
    """Ranks the products of a catalogue for a query."""

    def __init__(self, retriever: bm25s.BM25) -> None:
        self._retriever = retriever
        self._stemmer = Stemmer.Stemmer("porter")
        self._one_at_a_time = threading.Lock()  # a stemmer is not safe among threads, which agent loops use

    @classmethod
    def open(cls, catalogue: "Catalogue") -> "SearchEngine":
        """The catalogue's index from the cache; built, and put there, if it is not in it.

        An index that is damaged, of another catalogue or another version is built anew. Where nothing can be
        written it is built each time.
        """
        key = f"{_FORMAT}-{bm25s.__version__}-{catalogue.digest}"
        folder = cache_folder() / "webshop" / f"index-{catalogue.digest[:16]}"
        try:
            # Sums, because zeros from a power cut are a valid array, and would find nothing.
            if json.loads((folder / "key.json").read_bytes()) == {"key": key, "sha256": _sums(folder)}:
                return cls(bm25s.BM25.load(folder, show_progress=False))
        except (OSError, ValueError):
            pass  # there is none, or its key is broken
        engine = cls.build(catalogue.products)
        if engine._retriever.vocab_dict:
            engine._keep(folder, key)
        return engine

    @classmethod
    def build(cls, products: Sequence[Product]) -> "SearchEngine":
        """Index title, description, first bullet and options of every product."""
        engine = cls(bm25s.BM25(k1=_K1, b=_B, method="lucene"))
        engine._retriever.vocab_dict = {}
        texts = engine._split(list(map(_contents, products)))
        if any(texts):  # bm25s cannot index nothing
            engine._retriever.index(texts, show_progress=False)
        return engine

    def search(self, query: str) -> list[int]:
        """Indices of the products that share a word with `query`, best first, at most `HITS`.

        Of equal scores the earlier product comes first, as in Lucene.
        """
        # bm25s keeps an empty word for texts without words; nothing is indexed under it.
        words = [word for word in self._split([query])[0] if word and word in self._retriever.vocab_dict]
        if not words:
            return []
        scores = self._retriever.get_scores(words)
        found = np.flatnonzero(scores > 0)
        if len(found) > HITS:
            least = np.partition(scores[found], -HITS)[-HITS]
            found = found[scores[found] >= least]
        ranked: list[int] = found[np.argsort(-scores[found], kind="stable")][:HITS].tolist()
        return ranked

    def _split(self, texts: list[str]) -> list[list[str]]:
        with self._one_at_a_time:
            words: list[list[str]] = bm25s.tokenize(
                texts,
                token_pattern=r"(?u)\b\w+\b",
                stopwords="english",
                stemmer=self._stemmer,
                return_ids=False,
                show_progress=False,
            )
        return words

    def _keep(self, folder: Path, key: str) -> None:
        aside = ""
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            aside = tempfile.mkdtemp(dir=folder.parent)
            self._retriever.save(aside, show_progress=False)
            stored = {"key": key, "sha256": _sums(Path(aside))}
            Path(aside, "key.json").write_text(json.dumps(stored))
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(aside, folder)
        except OSError:
            pass  # no place for it, or another process was faster: this one has its index in memory
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _contents(product: Product) -> str:
    options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in product.options.items())
    return " ".join([product.title, product.description, *product.bullets[:1], options])


def _sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of an index."""
    return {path.name: file_sha256(path) for path in folder.iterdir() if path.name != "key.json"}

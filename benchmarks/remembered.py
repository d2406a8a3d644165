"""The embedder with a memory on disk: what one benchmark embedded, another or a later run need not."""

import hashlib

import numpy as np
from peers import WORK

from tailorbird.sources.embedder import default_embedder


class Remembered:
    """The embedder, which embeds no text twice, in this run or a later one."""

    def __init__(self):
        self.embedder = default_embedder()
        self.path = WORK / f"vectors-{self.embedder.name}.npz"
        self.known = self._kept()

    def _kept(self):
        if not self.path.is_file():
            return {}
        with np.load(self.path) as kept:
            return dict(zip(kept["keys"].tolist(), kept["vectors"], strict=True))

    @property
    def name(self):
        return self.embedder.name

    @property
    def dimensions(self):
        return self.embedder.dimensions

    def embed(self, texts):
        if not texts:
            return self.embedder.embed(texts)
        keys = [
            hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest() for text in texts
        ]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self.known}
        if new:
            self.known |= dict(zip(new, self.embedder.embed(list(new.values())), strict=True))
        return np.stack([self.known[key] for key in keys])

    def save(self):
        """Adds what is known to what other runs have saved meanwhile."""
        WORK.mkdir(parents=True, exist_ok=True)
        self.known |= self._kept()
        aside = self.path.with_suffix(".new.npz")
        np.savez(aside, keys=np.array(list(self.known)), vectors=np.stack(list(self.known.values())))
        aside.replace(self.path)


class RememberedTokens:
    """The embedder's token vectors, each text's made once in this process."""

    def __init__(self):
        self.embedder = default_embedder()
        self.known = {}

    @property
    def name(self):
        return self.embedder.name

    def token_vectors(self, text):
        if text not in self.known:
            self.known[text] = self.embedder.token_vectors(text).astype(np.float16)
        return self.known[text].astype(np.float32)

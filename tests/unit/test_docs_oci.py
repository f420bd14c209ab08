"""docs/oci.md says of each field of the specification what the reader does with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ocibundle import full, read, read_all, refusal
from ocischema import fields
from planning import registry

from gocker.oci.hooks import KINDS

TEXT = (Path(__file__).parents[2] / "docs" / "oci.md").read_text(encoding="utf-8")
STATES = ("honoured", "refused", "ignored")
RESOURCES, SECCOMP = "linux.resources", "linux.seccomp"
SAMPLES: dict[str, Any] = {"linux.netDevices": {"eth0": {}}}  # else an empty object is enough


def rows() -> dict[str, str]:
    """Field -> honoured, refused or ignored."""
    found: dict[str, str] = {}
    for cell, state in re.findall(rf"^\| (`.*`) \| ({'|'.join(STATES)}) \|", TEXT, re.MULTILINE):
        for name in re.findall(r"`(.+?)`", cell):
            for field in [name.replace("KIND", kind) for kind in KINDS] if "KIND" in name else [name]:
                assert field not in found, f"{field} stands twice"
                found[field] = state
    return found


def resource_rows() -> dict[str, str]:
    """Path below linux.resources -> the text of the cell beside it."""
    _, _, table = TEXT.partition("| below `linux.resources` | controller |")
    cells = re.findall(r"^\| (`.*`) \| (.*) \|$", table, re.MULTILINE)
    return {name: text for cell, text in cells for name in re.findall(r"`(.+?)`", cell)}


FIELDS = rows()


def below(field: str, above: str) -> bool:
    return field.startswith((f"{above}.", f"{above}["))


def put(config: Any, field: str, value: Any) -> None:
    """Set a field of a config, in the first item of each list."""
    *parents, last = field.replace("[]", ".0").split(".")
    for part in parents:
        config = config[int(part)] if part == "0" else config.setdefault(part, {})
    config[last] = value


def test_the_page_has_each_field_of_the_specification_and_no_other() -> None:
    whole = (RESOURCES, SECCOMP, *(field for field, state in FIELDS.items() if state == "refused"))
    named = {field for field in fields() if not any(below(field, above) for above in whole)}
    assert set(FIELDS) == named


@pytest.mark.parametrize("field", [field for field, state in FIELDS.items() if state == "honoured"])
def test_a_field_that_is_honoured_is_read(field: str) -> None:
    config = full()
    put(config, field, 7.5)  # no text, whole number, truth value, list or object
    place = field.replace("[]", "[0]")
    assert refusal(config).startswith(f"read config.json {place}: 7.5 is not ")


@pytest.mark.parametrize("field", [field for field, state in FIELDS.items() if state == "refused"])
def test_a_field_that_is_refused_is_an_error_that_names_it(field: str) -> None:
    config = full()
    put(config, field, SAMPLES.get(field, {}))
    assert refusal(config).startswith(f"read config.json {field}: ")


@pytest.mark.parametrize("field", [field for field, state in FIELDS.items() if state == "ignored"])
def test_a_field_that_is_ignored_changes_nothing(field: str) -> None:
    config = full()
    put(config, field, {})
    spec, warnings = read_all(config)
    assert spec == read(full())
    assert not any("unknown" in text for text in warnings)


def test_the_full_config_of_the_tests_has_every_field_that_is_honoured() -> None:
    for field, state in FIELDS.items():
        if state == "honoured":
            config: Any = full()
            for part in field.replace("[]", ".0").split("."):
                config = config[int(part) if part == "0" else part]


def test_the_page_names_the_controller_of_each_resource() -> None:
    claims = registry().claimants()
    documented = resource_rows()
    leaves = {
        field.removeprefix(f"{RESOURCES}.").partition("[")[0].partition(".*")[0]
        for field in fields()
        if below(field, RESOURCES)
    }
    inner = {leaf.rpartition(".")[0] for leaf in leaves}
    for leaf in sorted(leaves - inner):
        name = leaf if leaf in documented else f"{leaf.partition('.')[0]}.*"
        owners = claims.get(leaf, ())
        assert documented[name].startswith(f"`{owners[0]}`" if owners else "none of gocker's own")


def test_the_options_that_the_page_excepts_are_those_of_the_reader() -> None:
    from gocker.oci.mounts import OPTIONS, known_options

    sentences = TEXT.partition("Every option of the specification's table")[2].partition("`idmap`")[0]
    named = set(re.findall(r"`(\w+)`", sentences))
    assert named == set(OPTIONS) - set(known_options())

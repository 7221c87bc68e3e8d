"""Hardware profiles: what ships, what is refused and how it is said."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurodeploy.errors import FindingsError, UserError
from neurodeploy.hardware.profile import ALIASES, CHIP_TERMS, load_profile, profile_names
from neurodeploy.hardware.toml_lines import key_lines, line_of

GOOD = """\
schema = 1
id = "mine"
name = "A chip of mine"
caveat = "an example"
unpublished = { terms = ["mac", "spike", "hop"] }

[arithmetic]
payload = ["binary", "graded"]

[capacity]
unknown = ["cores_per_chip", "neurons_per_core", "synapses_per_chip", "synaptic_memory_bits_per_core", "fan_in",
    "input_axons_per_core", "output_axons_per_core", "chips_per_board"]
neurons_per_chip = { value = 1024, unit = "neuron", kind = "stated", bound = "upper", source = "sheet" }

[energy]
sop = { value = 2.0, low = 1.0, unit = "nJ", kind = "measured", bound = "exact", source = "sheet" }
neuron_active = { value = 3, unit = "pJ", kind = "vendor", bound = "lower", source = "sheet" }
neuron_idle = { value = 1, unit = "pJ", kind = "vendor", bound = "upper", source = "sheet" }

[[anchor]]
task = "a task"
boundary = "total"
energy = 2.0
unit = "uJ"
source = "sheet"

[sources]
sheet = { ref = "data sheet", verified = "primary", seen = "2026-11" }
"""


@pytest.fixture
def write(tmp_path: Path):
    def written(text: str) -> Path:
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return written


# --- what ships ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", profile_names())
def test_shipped_profiles_keep_the_rules(name):
    profile = load_profile(name)
    assert profile.id == name
    assert profile.caveat
    assert all(source.verified != "unverified" for source in profile.sources.values())
    used = {number.source for _, number in profile.numbers()} | {anchor.source for anchor in profile.anchor}
    assert used | {"lemaire2022"} >= set(profile.sources), "a source that nothing cites"
    for path, number in profile.numbers():
        if path[0] == "energy":
            assert number.value > 0
            assert number.kind != "estimated"


def test_the_chips_that_papers_ask_for_are_there():
    assert set(profile_names()) >= {
        "loihi2", "loihi1-davies2018", "loihi1-sanafe", "cmos45-fp32", "cmos45-int8", "truenorth-marginal",
        "spinnaker1", "spinnaker2", "speck", "xylo-audio2", "akida1000", "odin", "cmos22-yan",
    }  # fmt: skip


def test_second_hand_numbers_say_so():
    for name in ("loihi1-davies2018", "truenorth-marginal", "odin", "cmos45-fp32"):
        profile = load_profile(name)
        for path, number in profile.numbers():
            if path[0] == "energy":
                assert profile.sources[number.source].verified == "secondary", path


def test_constants_are_those_of_the_record():
    loihi, fp32, int8 = (load_profile(name) for name in ("loihi1-davies2018", "cmos45-fp32", "cmos45-int8"))
    assert (loihi.energy.sop.value, loihi.energy.sop.kind, loihi.energy.sop.bound) == (23.6, "simulated", "lower")
    assert (loihi.energy.neuron_active.value, loihi.energy.neuron_idle.value) == (81.0, 52.0)
    assert (fp32.energy.mac.value, fp32.energy.sop.value) == (4.6, 0.9)
    assert (int8.energy.mac_int8.value, int8.energy.sop.value) == (0.23, 0.03)
    assert load_profile("truenorth-marginal").energy.sop.value == 2.297
    assert load_profile("odin").energy.sop.value == 8.43
    loihi2 = load_profile("loihi2")
    assert all(value is None for key, value in loihi2.energy if key != "sram")
    assert loihi2.unpublished.terms[: len(CHIP_TERMS)] == list(CHIP_TERMS)
    assert loihi2.arithmetic.weight_step.value == 2
    assert loihi2.capacity.neurons_per_core.value == 8192
    assert "synaptic_memory_bits_per_core" in loihi2.capacity.unknown


def test_processors_price_baselines_and_nothing_else():
    for alias, name in ALIASES.items():
        assert load_profile(alias).id == name
    hosts = [load_profile(name) for name in profile_names() if load_profile(name).model == "host"]
    assert {profile.id for profile in hosts} >= {
        "cpu-i7-4960x", "gpu-titan-black", "arm-cortex-a", "jetson-nano", "orin-nano"
    }  # fmt: skip
    for profile in hosts:
        priced = {key for key, value in profile.energy if value}
        assert len(priced) == 1 and priced <= {"mac", "mac_int8"}
    # 10 W over 128 cores x 0.921 GHz x 2 halves; 15 W over 10e12 multiply-accumulates
    assert load_profile("jetson").energy.mac.value == pytest.approx(10 / (128 * 0.921e9 * 2) * 1e12, rel=1e-3)
    assert load_profile("orin").energy.mac_int8.value == pytest.approx(15 / 10e12 * 1e12)


# --- reading -------------------------------------------------------------------------------------------------------


def test_a_good_file_is_read(write):
    path = write(GOOD)
    profile = load_profile(path)
    assert profile.path == path
    assert len(profile.sha256) == 64
    assert profile.energy.sop.picojoules == 2000.0
    assert profile.energy.sop.interval_picojoules == (1000.0, 2000.0)
    assert profile.energy.neuron_active.interval == (3, None)
    assert profile.energy.neuron_idle.interval == (0.0, 1)
    assert profile.accepts_graded


def _refused(path: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        load_profile(path)
    assert caught.value.exit_code == 2
    assert str(path) in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "words"),
    [
        ('id = "mine"', 'idd = "mine"', 2, "idd", "did you mean 'id'?"),
        ("sop = {", "spo = {", 16, "energy.spo", "did you mean 'sop'?"),
        ("low = 1.0", "lo = 1.0", 16, "energy.sop.lo", "did you mean 'low'?"),
        ('unit = "nJ"', 'unit = "kJ"', 16, "energy.sop.unit", "'kJ'"),
        ("value = 2.0", "value = 0.0", 16, "energy.sop.value", "greater than 0"),
        ("value = 2.0", "value = nan", 16, "energy.sop.value", "finite"),
        ("value = 2.0", "value = true", 16, "energy.sop.value", "valid number"),
        ("value = 2.0", 'value = "2.0"', 16, "energy.sop.value", "valid number"),
        ("low = 1.0", "low = -1.0", 16, "energy.sop", "low -1 is below 0"),
        ("value = 1024", "value = 0", 13, "capacity.neurons_per_chip.value", "greater than 0"),
        ("value = 1024", "value = -5", 13, "capacity.neurons_per_chip.value", "greater than 0"),
        ("value = 1024", "value = 0.5", 13, "capacity.neurons_per_chip.value", "multiple of 1"),
        ("low = 1.0", "low = 9.0", 16, "energy.sop", "low 9 is above the value 2"),
        ('kind = "measured"', 'kind = "guessed"', 16, "energy.sop.kind", "'guessed'"),
        ('kind = "measured"', 'kind = "estimated"', 16, "energy.sop", "needs a rationale"),
        ('kind = "measured", ', "", 16, "energy.sop.kind", "missing"),
        ('source = "sheet" }\nneuron_a', 'source = "shet" }\nneuron_a', 16, "energy.sop.source", "not in [sources]"),
        ("schema = 1", "schema = 2", 1, "schema", "1"),
        ('"mac", "spike"', '"mac"', 15, "energy", "spike is accounted for nowhere"),
        ('"mac", "spike"', '"mac", "spikes"', 5, "unpublished.terms", "nearest: spike"),
        ('terms = ["mac"', 'terms = ["sop", "mac"', 16, "energy.sop", "accounted for more than once"),
        ('"fan_in",\n', "\n", 10, "capacity", "fan_in is neither given nor listed"),
        ('unknown = ["c', 'unknown = ["neurons_per_chip", "c', 13, "capacity.neurons_per_chip", "listed as unknown"),
        ('unit = "uJ"\n', "", 20, "anchor[0]", "energy and unit go together"),
        ('source = "sheet"\n\n[sources]', 'source = "sheat"\n\n[sources]', 25, "anchor[0].source", "not in [sources]"),
        ('["binary", "graded"]', "[]", 8, "arithmetic.payload", "at least 1"),
        ('payload = ["binary"', 'payload = ["analogue"', 8, "arithmetic.payload[0]", "'analogue'"),
        ('seen = "2026-11"', 'seen = "November"', 28, "sources.sheet.seen", "November"),
        ('caveat = "an example"\n', "", 1, "caveat", "missing"),
    ],
)
def test_a_fault_is_named_by_file_line_and_key(write, old, new, line, key, words):
    assert GOOD.count(old) == 1 or old in ("value = 2.0",)
    path = write(GOOD.replace(old, new, 1))
    error = _refused(path)
    message = str(error)
    assert f"{path}:{line}: {key}" in message, message
    assert words in message
    if not isinstance(error, FindingsError):
        assert "\n" not in message


@pytest.mark.parametrize(
    ("sizes", "widths", "values", "words"),
    [
        ((8192, 32768), (64, 32), (10.0, 20.0), "access_bits differ"),
        ((8192, 8192), (64, 64), (10.0, 20.0), "same capacity_bytes"),
        ((8192, 32768), (64, 64), (20.0, 10.0), "costs less"),
    ],
)
def test_memories_of_one_table_belong_together(write, sizes, widths, values, words):
    facts = 'unit = "pJ", kind = "measured", bound = "exact", source = "sheet"'
    rows = ", ".join(
        f"{{ value = {value}, capacity_bytes = {size}, access_bits = {width}, {facts} }}"
        for size, width, value in zip(sizes, widths, values, strict=True)
    )
    error = _refused(write(GOOD.replace("[energy]\n", f"[energy]\nsram = [{rows}]\n")))
    assert words in str(error)


def test_several_faults_come_at_once(write):
    path = write(GOOD.replace('id = "mine"', 'id = "MINE"').replace("energy = 2.0", "energy = -2.0"))
    error = _refused(path)
    assert isinstance(error, FindingsError)
    assert {finding.node.split(": ")[1] for finding in error.findings} == {"id", "anchor[0].energy"}


def test_all_in_excludes_prices_per_term(write):
    error = _refused(write(GOOD.replace("caveat =", 'scope = "all_in"\ncaveat =')))
    assert "already holds it" in str(error)


def test_no_toml_is_refused(write, tmp_path):
    assert "not valid TOML" in str(_refused(write("schema = = 1")))
    assert "line 1" in str(_refused(write("schema = = 1")))
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'name = "\xe9"')
    assert "UTF-8" in str(_refused(latin))
    assert "nested" in str(_refused(write("a = " + "[" * 5000 + "]" * 5000)))
    assert "too large" in str(_refused(write("#" * (1 << 21))))
    assert "cannot be read" in str(_refused(tmp_path / "absent.toml"))
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    assert "cannot be read" in str(_refused(folder))


def test_unknown_names_get_the_nearest_one():
    with pytest.raises(UserError, match="did you mean 'loihi2'") as caught:
        load_profile("lohi2")
    assert "cmos45-int8" in str(caught.value)


# --- lines ---------------------------------------------------------------------------------------------------------


def test_lines_of_every_way_to_write_a_key():
    text = """\
# comment with a = 1
a.b = 1
"quoted key" = { x = 1, y = { z = "}" } }
list = [
  1, # one
  { k = 2 },
]
text = \"\"\"
no = "key"
\"\"\"
[t.u]
v = 'it''s'
[[many]]
w = 1
[[many]]
w = 2
[many.inner]
deep = true
""".replace("'it''s'", "'its'")
    tomllib.loads(text)
    lines = key_lines(text)
    expected = {
        ("a", "b"): 2, ("quoted key", "y", "z"): 3, ("list", 0): 5, ("list", 1, "k"): 6, ("text",): 8,
        ("t", "u", "v"): 12, ("many", 0, "w"): 14, ("many", 1, "w"): 16, ("many", 1, "inner", "deep"): 18,
    }  # fmt: skip
    assert {path: lines[path] for path in expected} == expected
    assert ("no",) not in lines
    assert line_of(lines, ("t", "u", "absent", 3)) == 11
    assert line_of(lines, ("absent",)) == 1


KEYS = st.text("abcxyz_-09", min_size=1, max_size=6)
VALUES = st.one_of(
    st.integers(-99, 99).map(str),
    st.text("ab#=[]{},.'", max_size=8).map(lambda text: f'"{text}"'),
    st.booleans().map(lambda value: str(value).lower()),
)


@given(st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, min_size=1, max_size=4), max_size=5), st.integers(0, 2))
def test_lines_agree_with_where_the_text_was_put(tables, blank):
    rows: list[str] = []
    expected: dict[tuple[str, str], int] = {}
    for name, keys in tables.items():
        rows += [""] * blank + [f"[{name}]"]
        for key, value in keys.items():
            rows.append(f"{key} = {value}")
            expected[(name, key)] = len(rows)
    text = "\n".join(rows)
    assert set(tomllib.loads(text)) == set(tables)
    lines = key_lines(text)
    assert {path: lines[path] for path in expected} == expected


@given(st.text("ab =[]{}\"'#,.\n0", max_size=60))
def test_any_text_ends(text):
    assert all(line >= 1 for line in key_lines(text).values())

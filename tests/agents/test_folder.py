"""How a folder of journeys is read, and in which words what is wrong in it is said."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.folder import MAX_TEMPLATE_BYTES, read_folder
from engine import Exit, Journey, JourneyError, on
from engine.definitions import dump, dump_policy

Write = Callable[[str, str], Path]

MODULE = """
from engine import Exit, Journey, on

{variable} = Journey(name="{name}", version={version}, entry=on("a"), start="end", steps={{"end": Exit()}})
"""


def module(name: str, version: int = 1, variable: str = "journey") -> str:
    return MODULE.format(name=name, version=version, variable=variable)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "journeys"
    (path / "templates").mkdir(parents=True)
    return path


@pytest.fixture
def write(folder: Path) -> Write:
    def write(name: str, text: str) -> Path:
        (folder / name).write_text(text, "utf-8")
        return folder / name

    return write


def refusal(folder: Path) -> str:
    with pytest.raises(JourneyError) as error:
        read_folder(folder)
    return str(error.value)


def test_journeys_are_found_in_modules_by_whatever_name_and_come_ordered_by_theirs(folder: Path, write: Write) -> None:
    write("zebra.py", module("aardvark"))
    write("ant.py", module("zebu", variable="one") + module("mole", variable="OTHER"))
    assert [journey.name for journey in read_folder(folder).journeys] == ["aardvark", "mole", "zebu"]


def test_a_journey_may_be_written_as_json(folder: Path, write: Write) -> None:
    journey = Journey(name="written", version=1, entry=on("a"), start="end", steps={"end": Exit()})
    write("written.json", dump(journey).decode())
    assert read_folder(folder).journeys == [journey]


def test_modules_are_loaded_by_their_path_and_leave_nothing_behind(folder: Path, write: Write) -> None:
    write("json.py", module("json_named"))  # A name that the standard library has, too.
    before = dict(sys.modules)
    assert [journey.name for journey in read_folder(folder).journeys] == ["json_named"]
    assert {name for name in sys.modules if name not in before and "journeys" in name} == set()
    assert sys.modules["json"] is before["json"]


def test_a_changed_module_is_read_as_it_is_now(folder: Path, write: Write) -> None:
    write("cart.py", module("cart", version=1))
    read_folder(folder)
    write("cart.py", module("cart", version=22))
    assert [journey.version for journey in read_folder(folder).journeys] == [22]


def test_what_is_not_a_journey_is_left_alone(folder: Path, write: Write) -> None:
    for name in ("__init__.py", "_draft.py", "test_cart.py", "conftest.py"):
        write(name, "raise RuntimeError('never read')")
    write("constants.py", "HOURS = 3\n")
    write("README.md", "# ours")
    found = read_folder(folder)
    assert (found.journeys, found.templates, found.path) == ([], {}, folder)


def test_a_folder_without_templates_is_fine(tmp_path: Path) -> None:
    (tmp_path / "cart.py").write_text(module("cart"))
    assert read_folder(tmp_path).templates == {}


def test_a_folder_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere") == (
        f"there is no folder {tmp_path}/nowhere; name the folder of your journeys with --journeys DIR"
    )


# Templates


def test_the_parts_of_a_template_are_files_side_by_side(folder: Path, write: Write) -> None:
    write("templates/hello.subject.txt", "Hello")
    write("templates/hello.html", "<p>Hëllo</p>")
    write("templates/hello.txt", "Hello there")
    write("templates/hook.json", '{"a": 1}')
    write("templates/.hidden.html", "no")
    write("templates/notes.md", "no")
    assert read_folder(folder).templates == {
        "hello": {"subject": "Hello", "html": "<p>Hëllo</p>", "text": "Hello there"},
        "hook": {"json": '{"a": 1}'},
    }


def test_a_template_that_is_too_large_or_no_text_is_named(folder: Path, write: Write) -> None:
    file = write("templates/big.html", "x" * (MAX_TEMPLATE_BYTES + 1))
    assert refusal(folder) == f"{file}: a template may take {MAX_TEMPLATE_BYTES} bytes"
    file.write_bytes(b"\xff\xfe")
    assert refusal(folder).startswith(f"{file}: a template is UTF-8: ")


# What is wrong


def test_a_syntax_error_names_file_and_line(folder: Path, write: Write) -> None:
    file = write("cart.py", "from engine import on\n\ndef cart(:\n")
    assert refusal(folder) == f"{file}:3: invalid syntax"


def test_a_journey_that_is_refused_names_file_line_and_step(folder: Path, write: Write) -> None:
    file = write("cart.py", module("cart").replace('start="end"', 'start="ende"'))
    assert refusal(folder) == (f"{file}:4: cart v1: it starts at 'ende' (a), which is not a step; did you mean 'end'?")


def test_a_field_that_is_wrong_names_file_line_and_field(folder: Path, write: Write) -> None:
    file = write("cart.py", module("cart").replace("version=1", "version=0"))
    assert refusal(folder) == f"{file}:4: Journey: `version` is 0; it should be greater than or equal to 1"


def test_any_other_error_names_file_line_and_kind(folder: Path, write: Write) -> None:
    file = write("cart.py", "import engine\n\ndef f():\n    return 1 / 0\n\nf()\n")
    assert refusal(folder) == f"{file}:4: ZeroDivisionError: division by zero"
    write("cart.py", "import enginee\n")
    assert refusal(folder) == f"{file}:1: ModuleNotFoundError: No module named 'enginee'"
    write("cart.py", "import sys\nsys.exit('bye')\n")
    assert refusal(folder) == f"{file}:2: SystemExit: bye"


def test_the_line_is_named_for_a_folder_given_by_a_relative_path(
    folder: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("cart.py", "x = 1\ny = 1 / 0\n")
    monkeypatch.chdir(folder.parent)
    assert refusal(Path("journeys")) == "journeys/cart.py:2: ZeroDivisionError: division by zero"
    monkeypatch.chdir(folder)
    assert refusal(Path("../journeys")) == "../journeys/cart.py:2: ZeroDivisionError: division by zero"


def test_a_json_journey_that_is_wrong_names_file_and_place(folder: Path, write: Write) -> None:
    file = write("cart.json", '{"name": "cart",\n "version": }')
    assert refusal(folder) == f"{file}: Invalid JSON: expected value at line 2 column 13"
    write("cart.json", '{"name": "cart", "version": 1}')
    assert refusal(folder) == f"{file}: Journey: `steps` is missing; it is a table of named steps"


def test_two_journeys_of_one_name_are_refused_and_both_files_named(folder: Path, write: Write) -> None:
    first = write("a.py", module("cart", version=1))
    second = write("b.py", module("cart", version=2))
    assert refusal(folder) == f"{second}: a journey in {first} is called 'cart' already; a name is one journey"
    second.write_text(module("cart", version=1))  # The very same, imported or copied, is one journey.
    assert len(read_folder(folder).journeys) == 1


# Policies


POLICY = """
from datetime import timedelta

from engine import Cap, Policy

policy = Policy(version={version}, caps=(Cap(most=2, within=timedelta(days=1)),))
"""


def test_a_policy_is_found_in_a_module_or_as_json(folder: Path, write: Write) -> None:
    assert read_folder(folder).policy is None
    file = write("rules.py", POLICY.format(version=3))
    found = read_folder(folder).policy
    assert found is not None
    assert (found.version, found.caps[0].most) == (3, 2)
    file.unlink()
    write("policy.json", dump_policy(found).decode())
    assert read_folder(folder).policy == found


def test_a_folder_has_one_policy_which_others_may_import(folder: Path, write: Write) -> None:
    first = write("a.py", POLICY.format(version=1))
    second = write("b.py", POLICY.format(version=1))
    assert read_folder(folder).policy is not None
    second.write_text(POLICY.format(version=2))
    assert refusal(folder) == f"{second}: there is a policy in {first} already; a folder has one"


def test_a_policy_that_is_wrong_names_file_and_place(folder: Path, write: Write) -> None:
    file = write("policy.json", '{"version": 1, "zone": "Mars/Olympus"}')
    assert refusal(folder).startswith(f"{file}: 'Mars/Olympus' is not a time zone")
    file.unlink()
    file = write("rules.py", "from engine import Policy\npolicy = Policy(version=1, holdout=101)\n")
    assert refusal(folder) == f"{file}:2: Policy: `holdout` is 101; it should be less than or equal to 100"

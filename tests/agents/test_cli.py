"""That the command line explains itself, and that its errors are one readable line with what to do."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.cli.program import run
from tests.agents.command import COMMAND, PATIENCE_SECONDS, environment, equeengage

EXAMPLES = Path(__file__).parents[2] / "journeys"
COMMANDS = (
    "serve", "demo", "worker", "ingress", "channel", "topics create", "publish", "check", "diff", "draw",
    "send", "trace", "resume",
    "journey list", "journey pause", "journey resume", "journey stop", "journey retire", "journey rollback", "policy rollback",
    "erase", "backtest", "explain", "shadow start", "shadow report", "shadow list", "shadow stop",
)  # fmt: skip


def told(result: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that an error is told in."""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("equeengage: ")
    return lines[0].removeprefix("equeengage: ")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_how_it_is_used(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command.split(), "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Examples" in text
    assert f"equeengage {command}" in text


def test_the_help_names_every_command_and_imports_nothing_heavy() -> None:
    script = "import sys; from agents.cli.program import run; run(['--help']); print(sorted(sys.modules))"
    result = subprocess.run(
        [COMMAND.with_name("python"), "-c", script], capture_output=True, text=True, check=True, env=environment()
    )
    for command in COMMANDS:
        assert command.split()[0] in result.stdout
    heavy = {
        "pydantic",
        "aiohttp",
        "aiokafka",
        "rocksdict",
        "faust",
        "uvloop",
        "asyncio",
        "liquid",
        "prometheus_client",
    }
    modules = {name.strip("[]' ") for name in result.stdout.splitlines()[-1].split(",")}
    assert not heavy & modules


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["serv"], "No such command 'serv'. Did you mean 'serve'?; see equeengage --help"),
        (["trace"], "Missing argument 'user'; see equeengage trace --help"),
        (["serve", "--port", "http"], "should be a valid integer"),
        (["send", "ada", "paid", "amount"], "'amount' is not written NAME=VALUE"),
        (["send", "ada", "paid", "--tenant", "My Shop"], "'My Shop' is not a tenant"),
        (["publish", "--tenant", "shop", "--tenant", "My Shop"], "'My Shop' is not a tenant"),
        (["serve", "--port", "70000"], "--port: "),
        (["erase", "ada"], "this can't be undone; say so with --yes"),
        (["journey", "rollback", "welcome", "two"], "should be a valid integer"),
        (["topics", "create", "--channel", "My SMS"], "'My SMS' is not a channel"),
    ],
)
def test_misuse_is_exit_code_2_and_says_what_would_be_right(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert expected in error


def test_a_wrong_setting_is_named_as_it_was_set() -> None:
    result = equeengage("serve", EQUEENGAGE_WRITE_KEYS="My Shop:x")
    assert result.returncode == 2
    assert told(result).startswith("EQUEENGAGE_WRITE_KEYS: write keys are written tenant:key")
    nested = equeengage("topics", "create", EQUEENGAGE_KAFKA__PARTITIONS="0")
    assert told(nested).startswith("EQUEENGAGE_KAFKA__PARTITIONS: ")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"EQUEENGAGE_WEBHOOKS__CRM__TENANT": "shop", "EQUEENGAGE_WEBHOOKS__CRM__SECRET": ""},
            "EQUEENGAGE_WEBHOOKS: crm: the secret is empty",
        ),
        (
            {"EQUEENGAGE_WRITE_KEYS": "shop:same,bank:same"},
            "EQUEENGAGE_WRITE_KEYS: bank has a write key that another tenant has too",
        ),
        (
            {"EQUEENGAGE_PUBLIC_URL": "go.example.com"},
            "EQUEENGAGE_PUBLIC_URL: links can't begin with 'go.example.com'; write it as https://go.example.com",
        ),
    ],
)
def test_settings_that_cannot_work_are_told_before_anything_is_published(
    settings: dict[str, str], expected: str, tmp_path: Path
) -> None:
    result = equeengage("serve", "--data", tmp_path, "--port", 0, "--journeys", EXAMPLES, cwd=None, **settings)
    assert result.returncode == 1
    assert told(result) == expected
    assert not (tmp_path / "store").exists()
    keys = {"EQUEENGAGE_WRITE_KEYS": "shop:key", "EQUEENGAGE_LINK_SECRET": "a-long-random-text", **settings}
    assert told(equeengage("ingress", "--port", 0, cwd=None, **keys)) == expected


def test_a_secret_in_a_wrong_setting_is_not_repeated(tmp_path: Path) -> None:
    result = equeengage(
        "serve", "--data", tmp_path, "--port", 0, "--journeys", EXAMPLES, EQUEENGAGE_SMTP_URL="http://user:hunter2@host"
    )
    assert result.returncode == 1
    assert told(result).startswith("EQUEENGAGE_SMTP_URL: ")
    assert "hunter2" not in result.stderr + result.stdout


def test_a_traceback_is_shown_only_when_asked_for(tmp_path: Path) -> None:
    arguments = ("check", "--journeys", tmp_path / "nowhere")
    plain, verbose = equeengage(*arguments), equeengage(*arguments, "--verbose")
    assert plain.returncode == verbose.returncode == 1
    assert "there is no folder" in told(plain)
    assert "Traceback" in verbose.stderr


def test_a_mistake_in_a_journey_is_told_with_file_step_and_the_nearest_right_name(tmp_path: Path) -> None:
    (tmp_path / "trial.py").write_text(
        "from engine import Delay, Exit, Journey, days, on\n"
        "journey = Journey(name='trial', version=1, entry=on('started'), start='pause',\n"
        "                  steps={'pause': Delay(days(1), then='don'), 'done': Exit()})\n"
    )
    result = equeengage("check", "--journeys", tmp_path)
    assert result.returncode == 1
    assert "trial.py" in told(result)
    assert "did you mean 'done'?" in told(result)


def test_check_lists_what_is_in_order() -> None:
    result = equeengage("check", "--journeys", EXAMPLES)
    assert result.returncode == 0
    assert "3 journeys are in order" in result.stdout
    assert "cart_abandonment v3" in result.stdout


def test_draw_draws_one_journey_or_all(tmp_path: Path) -> None:
    one = equeengage("draw", "welcome", "--journeys", EXAMPLES)
    assert one.stdout.startswith("stateDiagram-v2")
    every = equeengage("draw", "--journeys", EXAMPLES, "-o", tmp_path / "journeys.md")
    assert every.returncode == 0
    assert (tmp_path / "journeys.md").read_text().count("```mermaid") == 3
    assert "did you mean 'welcome'?" in told(equeengage("draw", "welcom", "--journeys", EXAMPLES))


def test_what_needs_a_data_folder_says_so(tmp_path: Path) -> None:
    for command in (
        ["trace", "ada"], ["send", "ada", "paid"], ["resume", "ada", "welcome.1.x"], ["erase", "ada", "--yes"],
        ["journey", "list"], ["journey", "pause", "welcome"],
    ):  # fmt: skip
        result = equeengage(*command, "--data", tmp_path / "nowhere")
        assert result.returncode == 1
        assert "there is no data folder" in told(result)
    assert not (tmp_path / "nowhere").exists()


def test_who_sends_and_has_no_server_yet_is_told_why_there_is_no_story(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert equeengage("publish", "--journeys", EXAMPLES, "--data", data).returncode == 0
    assert equeengage("send", "ada", "signed_up", "--data", data).returncode == 0
    assert "does a server run that folds what was sent?" in told(equeengage("trace", "ada", "--data", data))


def test_on_kafka_explain_says_how_the_topic_gets_into_a_file() -> None:
    result = equeengage(
        "explain", "ada", "welcome", EQUEENGAGE_KAFKA__BOOTSTRAP="broker:9092", EQUEENGAGE_KAFKA__PREFIX="shop"
    )
    assert "kcat -b broker:9092 -C -e -J -t shop.events > events.ndjson" in told(result)


def test_what_needs_kafka_says_so_without_a_broker() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        bootstrap = f"127.0.0.1:{nobody.getsockname()[1]}"
        for command in (["topics", "create"], ["publish", "--journeys", EXAMPLES], ["trace", "ada"]):
            result = equeengage(*command, EQUEENGAGE_KAFKA__BOOTSTRAP=bootstrap)
            assert result.returncode == 1
            assert f"no Kafka broker answers at {bootstrap}" in told(result)


def test_the_ingress_on_kafka_asks_for_what_it_needs() -> None:
    assert "EQUEENGAGE_WRITE_KEYS" in told(equeengage("ingress", "--port", 0))
    assert "EQUEENGAGE_LINK_SECRET" in told(equeengage("ingress", "--port", 0, EQUEENGAGE_WRITE_KEYS="shop:key"))
    assert "EQUEENGAGE_PUBLIC_URL" in told(equeengage("channel", "email"))
    assert "there are email, webhook" in told(equeengage("channel", "pigeon"))


def test_a_taken_port_is_told_with_its_number(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        number = other.getsockname()[1]
        result = equeengage("serve", "--data", tmp_path / "data", "--port", number, "--journeys", EXAMPLES)
    assert result.returncode == 1
    assert f"the port is taken (127.0.0.1:{number})" in told(result)
    assert not (tmp_path / "data").exists()


def test_ctrl_c_ends_a_command_with_130(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("print('loading', flush=True)\nimport time\ntime.sleep(60)\n")
    with subprocess.Popen(
        [COMMAND, "check", "--journeys", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "equeengage: stopped\n"


def test_ctrl_c_while_a_command_is_still_being_loaded_is_no_traceback() -> None:
    script = (
        "import sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'agents.cli.program': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from agents.cli import main; main()\n"
    )
    result = subprocess.run(
        [COMMAND.with_name("python"), "-c", script], capture_output=True, text=True, env=environment()
    )
    assert (result.returncode, told(result)) == (130, "stopped")


def test_ctrl_c_while_worker_processes_are_still_being_loaded_is_no_traceback(tmp_path: Path) -> None:
    with (
        (tmp_path / "said").open("w") as output,
        subprocess.Popen(
            [COMMAND, "worker", "--processes", "2", "--data", tmp_path / "data"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(EQUEENGAGE_KAFKA__BOOTSTRAP="127.0.0.1:1"),
            start_new_session=True,  # a terminal sends it to all of them
        ) as process,
    ):
        until(lambda: is_half_loaded(process.pid))
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == 0
    said = (tmp_path / "said").read_text()
    assert "Traceback" not in said
    assert said.endswith("stopped; what was not folded waits on Kafka\n")


def is_half_loaded(supervisor: int) -> bool:
    """Whether a child of the process imports what it needs, and isn't done."""
    numbers = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    places = [place for number in numbers if (place := Path(f"/proc/{number}")).exists()]
    return any("spawn_main" in (at / "cmdline").read_text() and "uvloop" in (at / "maps").read_text() for at in places)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    result = subprocess.run(
        f"'{COMMAND}' draw --journeys '{EXAMPLES}' | head -1",
        shell=True,
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert result.stdout == "```mermaid\n"
    assert result.stderr == ""


def test_without_what_the_demo_brings_along_it_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['aiosmtpd.smtp'] = None; from agents.cli.program import run; sys.exit(run(['demo']))"
    )
    result = subprocess.run(
        [COMMAND.with_name("python"), "-c", script], capture_output=True, text=True, env=environment()
    )
    assert result.returncode == 1
    assert told(result).endswith("install it with: pip install 'equeengage[demo]'")


def test_the_version_is_told() -> None:
    assert equeengage("--version").stdout.startswith("equeengage 0.")

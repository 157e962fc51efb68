"""That the README is true: its journey and its tests run, its commands exist, its curl lines do what it says."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EQUEENGAGE = str(Path(sys.executable).with_name("equeengage"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Every `equeengage ...` command of the README, split into words, without its environment."""
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    split = [shlex.split(line, comments=True) for line in lines]
    return [words[words.index("equeengage") :] for words in split if "equeengage" in words]


@pytest.fixture
def my_journeys(tmp_path: Path) -> Path:
    """The folder that the README tells its reader to make."""
    folder = tmp_path / "my_journeys"
    (folder / "templates").mkdir(parents=True)
    for block in blocks("python"):
        name = block.partition("\n")[0].removeprefix("# ")
        (tmp_path / name).write_text(block)
    (folder / "templates" / "trial_ends.subject.txt").write_text("Your trial ends, {{ profile.first_name }}")
    (folder / "templates" / "trial_ends.html").write_text("<p>The {{ event.plan }} plan waits for you.</p>")
    return folder


def test_the_first_journey_passes_its_own_tests(my_journeys: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "test_trial.py"],
        cwd=my_journeys.parent, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": "."},
    )  # fmt: skip
    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_exists_and_knows_its_options(words: list[str]) -> None:
    options = [word for word in words if word.startswith("--") and word != "--help"]
    path = [words[1], words[2]] if words[1] in ("topics", "shadow") else [words[1]]
    shown = subprocess.run([EQUEENGAGE, *path, "--help"], capture_output=True, text=True, timeout=30)
    assert shown.returncode == 0, shown.stderr
    for option in options:
        assert option in shown.stdout, f"{' '.join(path)} doesn't know {option}"


def test_check_and_draw_take_the_folder(my_journeys: Path) -> None:
    for words in commands():
        if words[1] in ("check", "draw"):
            ran = subprocess.run(
                [EQUEENGAGE, *words[1:]], cwd=my_journeys.parent, capture_output=True, text=True, timeout=30
            )
            assert ran.returncode == 0, ran.stderr


@pytest.fixture
def server(my_journeys: Path) -> Iterator[tuple[Path, int]]:
    """The server as the README starts it, on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    words = next(words for words in commands() if words[1] == "serve")
    words = [EQUEENGAGE, *(str(port) if word == "8080" else word for word in words[1:])]
    environment = {**os.environ, "EQUEENGAGE_WRITE_KEYS": "default:secret", "EQUEENGAGE_SMTP_URL": "smtp://127.0.0.1:9"}
    process = subprocess.Popen(words, cwd=my_journeys.parent, env=environment, stdout=subprocess.DEVNULL)
    try:
        _wait_until_ready(process, port)
        yield my_journeys.parent, port
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0, "Ctrl-C ends it cleanly"


def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(300):
        assert process.poll() is None, "the server did not start"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).close()
            return
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError("the server did not become ready within 30 s")


def test_the_curl_lines_tell_the_server_about_ann(server: tuple[Path, int]) -> None:
    folder, port = server
    script = next(block for block in blocks("sh") if "curl" in block)
    environment = {**os.environ, "PATH": f"{Path(EQUEENGAGE).parent}:{os.environ['PATH']}"}
    curls = script.partition("equeengage trace")[0].replace("8080", str(port))
    ran = subprocess.run(["bash", "-ec", curls], capture_output=True, text=True, timeout=30, env=environment)
    assert ran.stdout.count('"success"') == 2, ran.stdout + ran.stderr
    story = ""
    for _ in range(50):
        trace = next(words for words in commands() if words[1] == "trace")
        story = subprocess.run([EQUEENGAGE, *trace[1:]], cwd=folder, capture_output=True, text=True, timeout=30).stdout
        if "Trial" in story:
            break
        time.sleep(0.2)
    assert "Trial v1" in story
    assert "trial_started" in story

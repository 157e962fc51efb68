"""What the command line is made of, and how it ends: with one readable line, never with a traceback nobody asked for."""

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from agents.cli import backtest, channel, check, demo, diff, draw, ingress, publish, resume, send, serve, trace, worker
from agents.cli import erase as erasing
from agents.cli import explain as explaining
from agents.cli import journey as journey_commands
from agents.cli import policy as policy_commands
from agents.cli import shadow as shadow_commands
from agents.cli import topics as topic_commands
from agents.cli.failure import Failed, explain

INTERRUPTED = 130  # what shells report for Ctrl-C

program = typer.Typer(
    name="equeengage",
    help="Customer engagement as code: events in, journeys move, messages out.",
    epilog="A first look: equeengage demo. Every command explains itself, with examples: equeengage COMMAND --help.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@program.callback()
def options(
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show the whole traceback of an error; may stand anywhere.")
    ] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Customer engagement as code: events in, journeys move, messages out."""
    # Both are taken out by `run` before the command line is parsed; they stand here to be found in --help.


def _add(command: Callable[..., None], panel: str, to: typer.Typer = program, name: str | None = None) -> None:
    """Add a command under its function's name. Its docstring is its help; what follows "Examples:" comes after the options."""
    text, _, examples = inspect.cleandoc(command.__doc__ or "").partition("Examples:\n")
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")]
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    epilog = "\n\n".join(["[dim]Examples[/]", *(f"  {escape(line)}" for line in lines)]) if lines else None
    to.command(name, help=escape("\n\n".join(paragraphs)), epilog=epilog, rich_help_panel=panel)(command)


RUNNING, AUTHORING, LOOKING = "Run it", "Write journeys", "Look and act"
_add(demo.demo, RUNNING)
_add(serve.serve, RUNNING)
_add(worker.worker, RUNNING)
_add(ingress.ingress, RUNNING)
_add(channel.channel, RUNNING)
topics = typer.Typer(help="Make and check the Kafka topics.", no_args_is_help=True)
_add(topic_commands.create, RUNNING, topics)
program.add_typer(topics, name="topics", rich_help_panel=RUNNING)
_add(check.check, AUTHORING)
_add(diff.diff, AUTHORING)
_add(draw.draw, AUTHORING)
_add(backtest.backtest, AUTHORING)
_add(publish.publish, AUTHORING)
_add(trace.trace, LOOKING)
_add(explaining.explain, LOOKING)
_add(send.send, LOOKING)
_add(resume.resume, LOOKING)
_add(erasing.erase, LOOKING)
journeys = typer.Typer(help="See and steer published journeys: pause, stop, roll back.", no_args_is_help=True)
_add(journey_commands.list_journeys, LOOKING, journeys, "list")
_add(journey_commands.pause, LOOKING, journeys)
_add(journey_commands.resume, LOOKING, journeys)
_add(journey_commands.stop, LOOKING, journeys)
_add(journey_commands.retire, LOOKING, journeys)
_add(journey_commands.rollback, LOOKING, journeys)
program.add_typer(journeys, name="journey", rich_help_panel=LOOKING)
shadows = typer.Typer(help="Let a version run beside the active one, unseen, and compare.", no_args_is_help=True)
_add(shadow_commands.start, AUTHORING, shadows)
_add(shadow_commands.report, AUTHORING, shadows)
_add(shadow_commands.list_shadows, AUTHORING, shadows, "list")
_add(shadow_commands.stop, AUTHORING, shadows)
program.add_typer(shadows, name="shadow", rich_help_panel=AUTHORING)
policies = typer.Typer(help="Steer the policy.", no_args_is_help=True)
_add(policy_commands.rollback, LOOKING, policies)
program.add_typer(policies, name="policy", rich_help_panel=LOOKING)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code. Errors are told on stderr in one line that says what to do."""
    options, rest = _split(arguments)
    if "--version" in options:
        from importlib.metadata import version

        Console().print(f"equeengage {version('equeengage')}", highlight=False)
        return 0
    try:
        result: Any = program(args=rest, prog_name="equeengage", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        _complain("stopped")
        return INTERRUPTED
    except BrokenPipeError:  # `equeengage trace ... | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if "--verbose" in options and not _is_usage(error):
            Console(stderr=True).print_exception()
        return _report(error)
    if result == INTERRUPTED:  # typer has caught the interrupt itself
        _complain("stopped")
    return result if isinstance(result, int) else 0


def _split(arguments: Sequence[str]) -> tuple[set[str], list[str]]:
    """Take --verbose out wherever it stands before `--`, and --version where it stands first."""
    options: set[str] = set()
    rest = list(arguments)
    end = rest.index("--") if "--" in rest else len(rest)
    if "--verbose" in rest[:end]:
        options.add("--verbose")
        rest = [argument for argument in rest[:end] if argument != "--verbose"] + rest[end:]
    if rest[:1] == ["--version"]:
        options.add("--version")
    return options, rest


def _is_usage(error: Exception) -> bool:
    return hasattr(error, "format_message") and hasattr(
        error, "exit_code"
    )  # click's errors, also typer's copy of click


def _report(error: Exception) -> int:
    if isinstance(error, Failed):
        _complain(str(error))
        return error.exit_code
    if _is_usage(error):
        context = getattr(error, "ctx", None)
        message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
        if message:  # empty where the help was printed instead
            path = context.command_path if context is not None else "equeengage"
            _complain(f"{message}; see {path} --help")
        return 2
    _complain(explain(error))
    return 1


def _complain(text: str) -> None:
    line = " ".join(text.split())
    Console(stderr=True, soft_wrap=True).print(f"[bold red]equeengage:[/] {escape(line)}", highlight=False)

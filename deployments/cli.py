"""The `ladder` command. Bad input is one line and exit 2; `ladder COMMAND --help` says the rest.

Exit codes: 0 done, 1 a step failed, 2 bad input, 3 the study's primary question came out INVALID, 4 a night's
budget is spent. Prefect and the studies are imported only by the commands that need them: importing takes
seconds.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from deployments import environment
from deployments.options import JsonOption, OutOption, ProfileOption, SetOption, StudyArgument, StudyOption
from deployments.visible import spoken, visible
from lab.errors import UsageError
from lab.home import resolve_home
from lab.store import Store, StoreLockedError

app = typer.Typer(
    name="ladder",
    help="Run studies of small language models, ask their gates, read what they found.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

INTERRUPTED = 130
"""What typer makes of Ctrl-C."""
AGAIN_SECONDS = 0.05
"""Until a Ctrl-C that was dropped comes again: later than the destructor's end."""


def _tell(lines: list[str], *, as_json: bool) -> None:
    print(json.dumps(lines, indent=1) if as_json else "\n".join(lines))


def _open_home() -> Path:
    """The home, with the environment set for Prefect and the number libraries."""
    home = resolve_home()
    environment.prepare(home)
    return home


@app.command(epilog="Example: ladder plan entropy_seeds --profile laptop")
def plan(
    study: StudyOption = None,
    profile: ProfileOption = "smoke",
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a run would make, what is here already and how long the rest takes; changes nothing."""
    home = _open_home()
    from deployments import plan_cli

    plan_cli.show_plan(home, study, profile, assignments or [], as_json=as_json)


@app.command(epilog="Example: ladder run entropy_seeds --set samples=20")
def run(
    study: StudyArgument,
    profile: ProfileOption = "smoke",
    assignments: SetOption = None,
    only: Annotated[
        str | None, typer.Option("--only", metavar="PART", help="One part alone: B_seed42, frozen_core")
    ] = None,
    out: OutOption = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Do its work again; tapes stay, and models of several studies")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if a blocker fails")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a study here and print its verdicts; what is already done is not done again."""
    if only is None and out is not None:
        raise UsageError("--out goes with --only: ladder run STUDY --only PART --out DIR")
    home = _open_home()
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"  # failures are said once, below
    from deployments import temporary_server

    server = temporary_server.start(home)
    from deployments import studies_cli

    told: dict[str, Any] = {"server": server, "as_json": as_json, "strict": strict, "anew": fresh}
    if only is not None:
        place = None if out is None else out.absolute()
        code = studies_cli.run_part(home, study, profile, assignments or [], only, place, **told)
    else:
        code = studies_cli.run_study(home, study, profile, assignments or [], **told)
    raise typer.Exit(code)


@app.command(epilog="Example: ladder night --budget 8h --profile fast")
def night(
    budget: Annotated[str, typer.Option("--budget", help="How long it may take: 8h, 90m, 45s")] = "8h",
    profile: ProfileOption = "smoke",
    studies: Annotated[
        list[str] | None, typer.Option("--study", help="Only this one; repeatable; all of them without")
    ] = None,
    only_left: Annotated[
        bool, typer.Option("--only-left", help="What earlier nights left, and nothing else")
    ] = False,
    climb: Annotated[
        bool, typer.Option("--climb/--no-climb", help="Follow routes to other profiles, or only propose them")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Run every study within a budget and follow its gates; go on where the last night ended."""
    from lab.night_queue import budget_seconds

    began = datetime.now(UTC)
    budget_seconds(budget)  # before a server is started
    home = _open_home()
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    from deployments import temporary_server

    server = temporary_server.start(home)
    from deployments import night_cli

    code = night_cli.run_night(
        home,
        began=began,
        budget=budget,
        profile=profile,
        names=studies or [],
        only_left=only_left,
        climb=climb,
        server=server,
        url=os.environ.get("PREFECT_API_URL", ""),
        as_json=as_json,
    )
    raise typer.Exit(code)


@app.command("import", epilog="Example: ladder import old_results.json")
def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Results of earlier scripts")],
    as_json: JsonOption = False,
) -> None:
    """Take in results of earlier scripts and put them to the gates; a malformed file is refused whole."""
    from deployments import import_cli

    import_cli.check_files(files)  # before the home is touched: a refused file leaves nothing
    home = _open_home()
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    from deployments import temporary_server

    import_cli.import_files(files, server=temporary_server.start(home), as_json=as_json)


@app.command(epilog="Example: ladder gates entropy_seeds")
def gates(
    study: StudyOption = None,
    why: Annotated[
        str | None, typer.Option("--why", metavar="ID", help="Compute one stored decision again")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show every path taken, a study's decision tree with its path, or one decision with its evidence."""
    home = _open_home()
    from deployments import studies_cli

    if why is None:
        studies_cli.show_gates(home, study, as_json=as_json)
    else:
        if study is None:
            raise UsageError("--why needs the study too: ladder gates STUDY --why ID")
        raise typer.Exit(studies_cli.explain_decision(home, study, why, as_json=as_json))


@app.command(epilog="Example: ladder freeze entropy_seeds --set alpha=0.01")
def freeze(study: StudyArgument, profile: ProfileOption = "smoke", assignments: SetOption = None) -> None:
    """Make a plan the declared one: decisions under it are no longer exploratory."""
    home = _open_home()
    from deployments import studies_cli

    studies_cli.freeze_plan(home, study, profile, assignments or [])


@app.command(epilog="Example: ladder sql 'SELECT * FROM decision_path' --format csv")
def sql(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="One SELECT; try: SELECT * FROM dictionary")],
    format_: Annotated[
        str, typer.Option("--format", help="table, csv, json or parquet (with --out)")
    ] = "table",
    out: OutOption = None,
) -> None:
    """Ask the results a question in SQL; only reading is possible."""
    from deployments import answers

    answer = Store(resolve_home()).sql(query)
    answers.write(answer, format_, out)


@app.command(epilog="Example: ladder report --out night.html")
def report(out: OutOption = None) -> None:
    """Write the report: one page with every verdict, figure and query, readable offline."""
    home = resolve_home()
    from deployments.terminal import progress
    from lab.report import write_report

    with progress():
        written = write_report(Store(home), out or home / "report.html")
    typer.echo(str(written))


@app.command(epilog="Example: ladder figures nanodesmo --format png")
def figures(
    study: StudyOption = None,
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="svg, png or html; repeatable")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write every figure as files, each beside a .json with its query, rows and commit."""
    home = resolve_home()
    from deployments.terminal import progress
    from lab.report_figures import write_figures

    name = study.replace("-", "_") if study else None
    with progress():
        written = write_figures(Store(home), home / "figures", study=name, formats=formats or ["svg", "png"])
    _tell([str(path) for path in written], as_json=as_json)


@app.command(epilog="Example: ladder verify nanodesmo")
def verify(
    study: StudyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check what the last run of a study left: run, plan, gates, files, figures; exit 1 if one fails."""
    from deployments import verify_cli

    raise typer.Exit(verify_cli.verify(resolve_home(), study, as_json=as_json))


@app.command(epilog="Example: ladder snapshot")
def snapshot() -> None:
    """Publish a copy of the results that may be queried while the night writes."""
    typer.echo(str(Store(resolve_home()).snapshot()))


@app.command(epilog="Example: ladder drain")
def drain() -> None:
    """Bring rows that wait in the outbox into the database."""
    found = Store(resolve_home()).drain(wait_seconds=10.0)
    typer.echo(f"{found.batches} batches with {found.rows} rows brought in, {found.waiting} waiting")
    if found.holder is not None:
        raise StoreLockedError(f"the database is held by {found.holder}; the rows are safe in the outbox")
    if found.problem is not None:
        raise OSError(found.problem)


@app.command(epilog="Example: ladder clean nanodesmo --yes")
def clean(
    study: StudyOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete it; without this it is only listed")] = False,
    as_json: JsonOption = False,
) -> None:
    """List what a study left that can be made again, and code copies of old nights; rows and tapes stay."""
    home = _open_home()
    from deployments import clean_cli

    clean_cli.clean(home, study, yes=yes, as_json=as_json)


@app.command(epilog="Example: ladder doctor")
def doctor(as_json: JsonOption = False) -> None:
    """Say what this machine can run now, and the fix for what it cannot."""
    home = _open_home()
    from deployments import services_cli

    raise typer.Exit(services_cli.show_doctor(home, as_json=as_json))


@app.command(epilog="Example: ladder up --port 4201")
def up(port: Annotated[int | None, typer.Option(min=1, max=65535, help="4200 or a free one")] = None) -> None:
    """Start server, work pool and worker, and register every deployment."""
    home = _open_home()
    from deployments import services_cli

    services_cli.up(home, port)


@app.command(epilog="Example: ladder down")
def down() -> None:
    """Stop what `ladder up` started."""
    home = _open_home()
    from deployments import services_cli

    raise typer.Exit(services_cli.down(home))


@app.command(epilog="Example: ladder status --json")
def status(as_json: JsonOption = False) -> None:
    """Say what runs: server, worker, deployments, runs, the database's holder."""
    home = _open_home()
    from deployments import services_cli

    services_cli.show_status(home, as_json=as_json)


@app.command(epilog='Example: eval "$(ladder env)"')
def env() -> None:
    """Print exports for a shell, so that plain `prefect` speaks to this home: eval "$(ladder env)"."""
    typer.echo(environment.shell_exports(resolve_home()))


def main() -> None:
    """Run the command; every known failure is one line."""
    try:
        found: Any = app(args=spoken(sys.argv[1:]), standalone_mode=False)
        sys.stdout.flush()
    except UsageError as error:
        _fail(error, 2)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (StoreLockedError, OSError) as error:
        _fail(error, 1)
    except typer.Abort:
        _fail("aborted", 1)
    except ValueError as error:
        if "KeyboardInterrupt" not in str(error):  # pydantic's, where Ctrl-C falls into Prefect's import
            raise
        found = INTERRUPTED
    except RuntimeError as error:
        if not str(error).startswith("Failed to reach API"):  # Prefect's; the server went away just then
            raise
        _fail(environment.UNREACHABLE.format(url=os.environ.get("PREFECT_API_URL")), 1)
    except TyperException as error:  # a wrong command, option or argument
        message = error.format_message()
        if not message:  # no command at all: the help stands above
            sys.exit(2)
        _fail(f"{message.rstrip('.')}. {_advice(error)}", 2)
    if found == INTERRUPTED:
        _fail("interrupted; the same command goes on where it stopped", INTERRUPTED)
    sys.exit(found if isinstance(found, int) else 0)


def console() -> None:
    """The console script: `main`, then out without taking the interpreter apart.

    Threads of Prefect still hold the modules then, and DuckDB's binding would report each object of its own
    as leaked. Exit handlers run last in, first out, so this one comes after all others.
    """
    code = 1
    atexit.register(lambda: _leave(code))
    sys.unraisablehook = unraisable
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
        raise


def unraisable(what: sys.UnraisableHookArgs) -> None:
    """Say what a destructor raised; a Ctrl-C that fell into one, where Python drops it, comes again."""
    if what.exc_type is KeyboardInterrupt:
        threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(what)


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _advice(error: TyperException) -> str:
    """Where the options stand, or which commands there are."""
    context = getattr(error, "ctx", None)
    if context is not None and context.parent is not None:
        return f"`ladder {context.info_name} --help` tells its options."
    names = sorted(
        found.name or found.callback.__name__ for found in app.registered_commands if found.callback
    )
    return f"Commands: {', '.join(names)}; each tells its options with --help."


def _fail(error: object, code: int) -> None:
    print(f"ladder: {visible(' '.join(str(error).split()))}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    console()

"""The command line of the local stack: `python -m local_stack --help`."""

from __future__ import annotations

from typing import Annotated

import typer

from local_stack.console import console, say
from local_stack.errors import StackError

app = typer.Typer(
    help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)


@app.command()
def demo(
    stay: Annotated[int, typer.Option(help="1: stay up until Ctrl-C; 0: stop everything at the end.")] = 1,
) -> None:
    """Whole nights against the sandbox, then the addresses to look at."""
    from local_stack.demo import Interrupted, run_demo
    from local_stack.stack import Stack

    try:
        run_demo(Stack(), stay=bool(stay))
    except Interrupted:
        raise typer.Exit(130) from None


@app.command()
def stop() -> None:
    """Stop what the demo started, also after a crash."""
    from local_stack.settings import Settings
    from local_stack.stack import end_demo, stop_everything

    settings = Settings()
    end_demo(settings)
    stop_everything(settings)


@app.command()
def status() -> None:
    """What is running, and where."""
    from local_stack.stack import Stack

    stack = Stack()
    names = [record.name for record in stack.processes.running()]
    names += ["postgres"] if stack.postgres.is_running() else []
    say(f"running: {', '.join(sorted(names)) or 'nothing'}")
    if names:
        say(f"Airflow {stack.settings.airflow_url}, sandbox {stack.sandbox.url}, PostgreSQL port {stack.postgres.port}")


@app.command()
def pages() -> None:
    """Build the front end of the review pages, if something in it changed."""
    from local_stack import pages

    pages.build()


@app.command("api-types")
def api_types() -> None:
    """Write the API's models as TypeScript."""
    from local_stack import pages

    pages.write_api_types()


@app.command()
def check() -> None:
    """ruff, mypy, sqlfluff, and the front end's own check."""
    from local_stack import checks

    raise typer.Exit(0 if checks.check() else 1)


@app.command("format")
def format_code() -> None:
    """Let ruff and sqlfluff mend what they can."""
    from local_stack import checks

    raise typer.Exit(0 if checks.format_code() else 1)


@app.command()
def lock(
    upgrade: Annotated[bool, typer.Option("--upgrade", help="Take newer versions where allowed.")] = False,
) -> None:
    """Write the lock files anew."""
    from local_stack import checks

    raise typer.Exit(0 if checks.lock(upgrade=upgrade) else 1)


def main() -> None:
    try:
        app()
    except StackError as error:
        console.print("\n[bold red]Failed[/bold red]")
        console.print(str(error), markup=False)
        if error.log is not None:
            console.print(f"Log: {error.log}", markup=False)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()

"""`harness ui`: the pages of MLflow and of the Optuna dashboard on the default stores."""

import signal
from pathlib import Path
from types import FrameType

import click

from harness.cli.init import make_ready
from harness.cli.options import store_option


@click.command()
@store_option
def ui(store: Path) -> None:
    """Show runs and searches in the browser: MLflow and the Optuna dashboard, for this machine only.

    $MLFLOW_TRACKING_URI and $HARNESS_OPTUNA_STORAGE name other databases than those of the store.
    """
    from harness.services import free_port, mlflow_server, optuna_dashboard, running
    from harness.urls import masked

    root = store.absolute()
    click.echo("Starting; the first time takes some seconds more.")
    tracking, storage = make_ready(root)
    dashboard = optuna_dashboard(storage, free_port(8080))
    if tracking.startswith("http"):
        click.echo(f"MLflow            {masked(tracking)} (a server of its own)")
        services = [dashboard]
    else:
        services = [mlflow_server(tracking, root, free_port(5000)), dashboard]
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, _interrupt)
    try:
        with running(services) as started:
            for service in services:
                click.echo(f"{service.name:16}  {service.address}")
                if service.name == "MLflow":
                    _list_experiments(service.address)
            click.echo("Ctrl-C stops both." if len(services) == 2 else "Ctrl-C stops it.")
            started.wait()
    except KeyboardInterrupt:
        click.echo("Stopped.")


def _list_experiments(server: str) -> None:
    from harness.services import experiment_pages

    for name, page in experiment_pages(server, 5):
        click.echo(f"  {name:14}  {page}")


def _interrupt(number: int, frame: FrameType | None) -> None:
    """A request to end, or the terminal closing, stops the services as Ctrl-C does."""
    raise KeyboardInterrupt

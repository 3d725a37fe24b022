"""`harness ui`: the studies of a store in the browser, beside MLflow and the Optuna dashboard."""

import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from harness.cli.init import make_ready
from harness.cli.options import store_option
from harness.cli.sentences import tell

if TYPE_CHECKING:
    from harness.services import Service

FIRST_PORT = 8800


@click.command()
@click.option(
    "--port",
    type=click.IntRange(1, 65_533),
    help=f"Of the page; MLflow and the Optuna dashboard have the next two. By default {FIRST_PORT}.",
)
@store_option
def ui(port: int | None, store: Path) -> None:
    """Show studies in the browser while they train, beside MLflow and the Optuna dashboard; for this machine only.

    The page shows progress, curves of what trains now, failures with their reasons, and the report. It trains nothing
    and alters no result. Effects of seeds that nobody has seen are shown on request only: that is a look, and it is
    written down like the looks of other commands.

    $MLFLOW_TRACKING_URI and $HARNESS_OPTUNA_STORAGE name other databases than those of the store.
    """
    from harness.services import live_page, mlflow_server, optuna_dashboard, ports, running
    from harness.urls import masked

    root = store.absolute()
    tell("Starting; the first time takes some seconds more.")
    tracking, storage = make_ready(root)
    has_server = tracking.startswith("http")
    numbers = ports(port or FIRST_PORT, 3, is_asked=port is not None)
    dashboard = optuna_dashboard(storage, numbers[2])
    mlflow = None if has_server else mlflow_server(tracking, root, numbers[1])
    links = [("MLflow", mlflow.address if mlflow else masked(tracking)), (dashboard.name, dashboard.address)]
    services = [live_page(root, numbers[0], links), *([mlflow] if mlflow else []), dashboard]
    if has_server:
        click.echo(f"MLflow            {masked(tracking)} (a server of its own)")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, _interrupt)
    try:
        with running(services, _say_ready) as started:
            click.echo("Ctrl-C stops all of them.")
            started.wait()
    except KeyboardInterrupt:
        click.echo("Stopped.")


def _say_ready(service: "Service") -> None:
    from harness.services import experiment_pages

    click.echo(f"{service.name:16}  {service.address}")
    if service.name == "MLflow":
        for name, page in experiment_pages(service.address, 5):
            click.echo(f"  {name:14}  {page}")


def _interrupt(number: int, frame: FrameType | None) -> None:
    """A request to end, or the terminal closing, stops the services as Ctrl-C does."""
    raise KeyboardInterrupt

"""Tracking with MLflow; the only package that imports it, and not before it is used.

    database.py   where tracking lives: URIs, a database made ready once
    places.py     where artifacts lie, also after the store was moved
    run_image.py  what MLflow should hold for a cell, as plain values from its journal
    outline.py    the tree of runs of a study; images of variants and of the study
    summary.py    effects and files of a study run, kept until they are delivered
    ledger.py     what has been delivered
    server.py     the calls to MLflow
    sender.py     brings one run up to its image
    tracking.py   brings a study run, or everything, up to the folder of cells
    follower.py   does so in the background, while cells train
    registry.py   the confirmed model, where a trainer exports one

Training, plans and statistics do not belong here.
"""

from harness.tracking.database import import_ahead, init, resolve_uri
from harness.tracking.follower import Follower, follow
from harness.tracking.tracking import Delivery, RunLink, Tracking, sync

__all__ = [
    "Delivery",
    "Follower",
    "RunLink",
    "Tracking",
    "follow",
    "import_ahead",
    "init",
    "resolve_uri",
    "sync",
]

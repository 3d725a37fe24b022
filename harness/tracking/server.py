"""The few things that are asked of MLflow, in our words. MLflow is imported on first use, after its environment is set.

Only `MlflowClient` with explicit run ids: the fluent interface keeps an active run for each thread, and marks a run
that an exception left as FINISHED.
"""

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from harness.errors import TrackingError
from harness.tracking import whole_runs
from harness.tracking.database import configure_mlflow, init
from harness.tracking.ledger import Entry
from harness.tracking.places import artifacts_folder, local_folder, set_address
from harness.tracking.run_image import Artifact, Dataset, Point, RunImage, RunStatus
from harness.urls import masked

KEY_TAG = "harness.run_key"
POINTS_PER_BATCH, PAIRS_PER_BATCH = 800, 100  # MLflow: at most 100 params, 100 tags, 1000 of everything
RUNS_PER_PAGE = 500


@dataclass(frozen=True, slots=True)
class Run:
    """A run as MLflow has it, without its metrics."""

    run_id: str
    artifact_uri: str
    status: str
    is_active: bool
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metric_keys: Sequence[str]
    has_dataset: bool


class Server:
    """One tracking database or server, made ready by `init`.

    Raises:
        TrackingError: it cannot be used.
    """

    def __init__(self, uri: str, root: Path) -> None:
        configure_mlflow()
        init(uri, root)
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=uri)
        self._uri, self._is_remote = uri, uri.startswith("http")
        self._artifacts = None if self._is_remote else artifacts_folder(root)
        self._names: dict[str, str] = {}  # of experiments, by id

    def experiment(self, name: str) -> str:
        """The id of the experiment, made if need be. Its artifacts go below the store's folder, wherever we run."""
        found = self._client.get_experiment_by_name(name) or self._made_experiment(name)
        if found.lifecycle_stage != "active":
            raise TrackingError(
                f"{masked(self._uri)}: experiment '{name}' is deleted. Restore it with `mlflow experiments restore "
                f"--experiment-id {found.experiment_id}`, or remove it for good with `mlflow gc`."
            )
        self._names[found.experiment_id] = name
        return str(found.experiment_id)

    def _made_experiment(self, name: str) -> Any:
        """A new experiment, or the one that another process made since we looked."""
        from mlflow.exceptions import MlflowException

        where = (self._artifacts / name).as_uri() if self._artifacts else None
        kind = {"mlflow.experimentKind": "custom_model_development"}  # its pages show runs, not chats
        try:
            return self._client.get_experiment(self._client.create_experiment(name, where, kind))
        except MlflowException as error:
            if error.error_code == "RESOURCE_ALREADY_EXISTS" and (found := self._client.get_experiment_by_name(name)):
                return found
            raise

    def create_run(self, experiment: str, name: str, start_ms: int, tags: Mapping[str, str]) -> Run:
        """A new run. A request that was repeated on its way has made twins (MLflow repeats POST too): one stays."""
        run = self._client.create_run(experiment, start_time=start_ms, tags=dict(tags), run_name=name)
        if self._is_remote:
            for twin in self.find(experiment, {KEY_TAG: tags[KEY_TAG]}):
                if twin.run_id != run.info.run_id:
                    self.delete_run(twin.run_id)
        elif (place := self._place(experiment, run.info.run_id)) and place.as_uri() != run.info.artifact_uri:
            set_address(self._uri, run.info.run_id, place.as_uri())  # another store made the experiment
        return _as_run(run)

    @cached_property
    def takes_whole_runs(self) -> bool:
        """Whether `create_whole` can be called: it is a database, with tables as they are known."""
        return not self._is_remote and whole_runs.are_known()

    def keys_there(self, experiment: str, keys: Collection[str]) -> set[str]:
        """Those of the keys that runs have; one question for all of them."""
        return whole_runs.keys_there(self._uri, experiment, KEY_TAG, keys)

    def create_whole(self, experiment: str, runs: Sequence[tuple[Entry, RunImage]]) -> None:
        """New runs with all that they show, in one transaction, which ends when their artifacts are there. An entry has
        the id and the tags that its run gets."""

        def put_all() -> None:
            for entry, image in runs:
                for artifact in image.artifacts:
                    self.put(entry.run_id, experiment, entry.artifact_uri, artifact)

        with ThreadPoolExecutor(1, "artifacts") as files:  # beside the database, which both wait for the disk
            are_there = files.submit(put_all)
            whole_runs.write(self._uri, experiment, runs, before_commit=are_there.result)

    def artifact_uri(self, experiment: str, run_id: str) -> str:
        """Where the artifacts of a new run go; empty where a server decides."""
        place = self._place(experiment, run_id)
        return place.as_uri() if place else ""

    def delete_run(self, run_id: str) -> None:
        """Moves it to MLflow's trash, from where it can be restored."""
        self._client.delete_run(run_id)

    def find(self, experiment: str, tags: Mapping[str, str], *, status: RunStatus | None = None) -> list[Run]:
        """The runs with these tags, the oldest first. Costs about 3 ms for each run that is found."""
        conditions = [f"tags.`{name}` = '{text}'" for name, text in tags.items()]
        conditions += [f"attributes.status = '{status}'"] if status else []
        found, token = [], None
        while True:
            page = self._client.search_runs(
                [experiment],
                " and ".join(conditions),
                max_results=RUNS_PER_PAGE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            found += [_as_run(run) for run in page]
            token = page.token
            if not token:
                return found

    def run(self, run_id: str) -> Run | None:
        """The run, or None where it does not exist."""
        from mlflow.exceptions import MlflowException

        try:
            return _as_run(self._client.get_run(run_id))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def points(self, run: Run) -> list[Point]:
        """Every metric point that the run has got, in no order."""
        histories = [self._client.get_metric_history(run.run_id, key) for key in run.metric_keys]
        return [Point(it.key, it.value, it.timestamp, it.step) for history in histories for it in history]

    def send(self, run_id: str, points: Sequence[Point], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(it.key, it.value, it.timestamp_ms, it.step) for it in points]
        param_list = [Param(*pair) for pair in params.items()]
        tag_list = [RunTag(*pair) for pair in tags.items()]
        while metrics or param_list or tag_list:
            self._client.log_batch(
                run_id,
                metrics=metrics[:POINTS_PER_BATCH],
                params=param_list[:PAIRS_PER_BATCH],
                tags=tag_list[:PAIRS_PER_BATCH],
            )
            del metrics[:POINTS_PER_BATCH], param_list[:PAIRS_PER_BATCH], tag_list[:PAIRS_PER_BATCH]

    def log_dataset(self, run_id: str, dataset: Dataset) -> None:
        from mlflow import entities

        it = entities.Dataset(dataset.name, dataset.digest, source_type="harness", source=dataset.source)
        context = entities.InputTag("mlflow.data.context", "training")
        self._client.log_inputs(run_id, [entities.DatasetInput(it, tags=[context])])

    def put(self, run_id: str, experiment: str, artifact_uri: str, artifact: Artifact) -> None:
        """Stores an artifact; in a folder of this machine as a hard link, so that weights lie on the disk once."""
        folder = self._place(experiment, run_id) or local_folder(artifact_uri)
        if folder:
            _place(artifact, folder)
        elif isinstance(artifact.source, str):
            self._client.log_text(run_id, artifact.source, artifact.name)
        else:
            parent = PurePosixPath(artifact.name).parent.as_posix()
            self._client.log_artifact(run_id, str(artifact.source), None if parent == "." else parent)

    def remove_files(self, experiment: str, run_id: str) -> None:
        """Of a run in the trash, where they lie below the store; a server keeps them until `mlflow gc`."""
        place = self._place(experiment, run_id)
        if place:
            shutil.rmtree(place.parent, ignore_errors=True)

    def _place(self, experiment: str, run_id: str) -> Path | None:
        """Where the artifacts of a run of this store lie, whatever MLflow noted when the store was elsewhere; None
        where a server has them."""
        return self._artifacts / self._names[experiment] / run_id / "artifacts" if self._artifacts else None

    def set_status(self, run_id: str, status: RunStatus, end_ms: int | None) -> None:
        if status == "RUNNING":
            self._client.update_run(run_id, status=status)
        else:
            self._client.set_terminated(run_id, status, end_time=end_ms)


def _as_run(run: Any) -> Run:
    return Run(
        run_id=run.info.run_id,
        artifact_uri=run.info.artifact_uri,
        status=run.info.status,
        is_active=run.info.lifecycle_stage == "active",
        tags=run.data.tags,
        params=run.data.params,
        metric_keys=list(run.data.metrics),
        has_dataset=bool(run.inputs and run.inputs.dataset_inputs),
    )


def _place(artifact: Artifact, folder: Path) -> None:
    target = folder / artifact.name
    if not folder.exists():  # of a new run: its own folder, and that of its artifacts
        folder.parent.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if isinstance(artifact.source, str):
        target.write_text(artifact.source)
        return
    try:
        os.link(artifact.source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(artifact.source, target)

"""The stories of volumes and snapshots, one a file."""

from droveway.control.engine.saga import Saga
from droveway.control.sagas.volumes.create import CREATE_VOLUME
from droveway.control.sagas.volumes.delete import DELETE_VOLUME

STORIES_OF_VOLUMES: tuple[Saga, ...] = (CREATE_VOLUME, DELETE_VOLUME)

"""The stories of volumes and snapshots, one a file."""

from droveway.control.engine.saga import Saga
from droveway.control.sagas.volumes.backups import BACKUP_VOLUME, DELETE_BACKUP, RESTORE_BACKUP
from droveway.control.sagas.volumes.connecting import ADMIT_CONNECTOR
from droveway.control.sagas.volumes.create import CREATE_VOLUME
from droveway.control.sagas.volumes.delete import DELETE_VOLUME
from droveway.control.sagas.volumes.extend import EXTEND_VOLUME
from droveway.control.sagas.volumes.retype import RETYPE_VOLUME
from droveway.control.sagas.volumes.revert import REVERT_VOLUME
from droveway.control.sagas.volumes.snapshots import CREATE_SNAPSHOT, DELETE_SNAPSHOT
from droveway.control.sagas.volumes.tidy import TIDY_VOLUME
from droveway.control.sagas.volumes.upload import UPLOAD_VOLUME

STORIES_OF_VOLUMES: tuple[Saga, ...] = (
    *(CREATE_VOLUME, DELETE_VOLUME, EXTEND_VOLUME, REVERT_VOLUME, UPLOAD_VOLUME, RETYPE_VOLUME),
    *(CREATE_SNAPSHOT, DELETE_SNAPSHOT, TIDY_VOLUME, ADMIT_CONNECTOR),
    *(BACKUP_VOLUME, RESTORE_BACKUP, DELETE_BACKUP),
)

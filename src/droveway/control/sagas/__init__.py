"""What must end: one story a file. `STORIES` is all of them."""

from droveway.control.engine.saga import Saga
from droveway.control.sagas.attaching import ATTACH_VOLUME, DETACH_VOLUME, FREE_VOLUME
from droveway.control.sagas.boot import BOOT
from droveway.control.sagas.cold_migration import COLD_MIGRATION, RESIZE_SERVER
from droveway.control.sagas.delete import DELETE
from droveway.control.sagas.holding import PAUSE, RESUME, SUSPEND, TRIGGER_CRASH_DUMP, UNPAUSE
from droveway.control.sagas.interfaces import ATTACH_INTERFACE, DETACH_INTERFACE
from droveway.control.sagas.live_migration import LIVE_MIGRATION
from droveway.control.sagas.power import HARD_REBOOT, SOFT_REBOOT, START, STOP
from droveway.control.sagas.rebuild import REBUILD
from droveway.control.sagas.rescue import RESCUE, UNRESCUE
from droveway.control.sagas.reset_state import RESET_STATE
from droveway.control.sagas.resize_ends import CONFIRM_RESIZE, REVERT_RESIZE
from droveway.control.sagas.shelve import SHELVE, SHELVE_OFFLOAD, UNSHELVE
from droveway.control.sagas.snapshot import CREATE_BACKUP, CREATE_IMAGE
from droveway.control.sagas.soft_delete import RESTORE, SOFT_DELETE
from droveway.control.sagas.volumes import STORIES_OF_VOLUMES
from droveway.domain.model import SagaKind

_ALL = (
    *(BOOT, DELETE, START, STOP, HARD_REBOOT, SOFT_REBOOT, LIVE_MIGRATION, ATTACH_INTERFACE, DETACH_INTERFACE),
    *(ATTACH_VOLUME, DETACH_VOLUME, FREE_VOLUME),
    *(COLD_MIGRATION, RESIZE_SERVER, CONFIRM_RESIZE, REVERT_RESIZE),
    *(PAUSE, UNPAUSE, SUSPEND, RESUME, TRIGGER_CRASH_DUMP, RESET_STATE),
    *(CREATE_IMAGE, CREATE_BACKUP, REBUILD, RESCUE, UNRESCUE, SHELVE, SHELVE_OFFLOAD, UNSHELVE, SOFT_DELETE, RESTORE),
    *STORIES_OF_VOLUMES,
)
STORIES: dict[SagaKind, Saga] = {saga.kind: saga for saga in _ALL}

"""What is foreseen of a migration before its copy begins, recorded beside how it was."""

from __future__ import annotations

from droveway.control.engine.saga import Context
from droveway.control.sagas.whereabouts import MoveNotes
from droveway.domain.move_prediction import ASSUMED, Mode, learn, of_mode, predict
from droveway.store.compute import predictions
from droveway.store.engine.transaction import Tx
from droveway.store.rows import PredictionRow


def record(tx: Tx, ctx: Context) -> None:
    """From what its source has said of the guest: nothing is measured for it now, that would take a second. A source of
    an older release says nothing."""
    move: MoveNotes = ctx.notes
    if move.load is None:
        return
    way = learn(predictions.outcomes(tx), ASSUMED)
    disk_bytes = sum(disk.allocated_bytes for disk in move.files.disks)
    mode = Mode(move.target.policy)
    found = of_mode(predict(move.load, disk_bytes, way, move.target.downtime_ms / 1000), mode)
    row = PredictionRow(
        saga_id=ctx.id,
        instance_id=ctx.instance_id,
        source=move.source,
        destination=move.destination,
        mode=mode.value,
        bytes=move.load.used_bytes + disk_bytes,
        dirty_bytes_per_s=move.load.dirty_bytes_per_s,
        learnt_from=way.learnt_from,
        predicted_ms=_ms(found.duration_s),
        predicted_downtime_ms=_ms(found.downtime_s),
        outcome="",
        duration_ms=None,
        downtime_ms=None,
        at_us=tx.now_us,
    )
    predictions.record(tx, row)


def record_end(tx: Tx, ctx: Context, outcome: str) -> None:
    """It took that long since its saga began to work on it."""
    move: MoveNotes = ctx.notes
    if move.load is not None:
        downtime_ms = None if move.last_progress is None else move.last_progress.downtime_ms
        predictions.end(tx, ctx.id, outcome, max(0, tx.now_us - move.began_us) // 1000, downtime_ms)


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(1000 * seconds)

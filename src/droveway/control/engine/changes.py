"""What a save of a saga writes, inside its transaction: each change returns the position and the status that follow."""

from __future__ import annotations

from typing import Any

from droveway.control.engine.run import Run
from droveway.domain.model import SagaStatus
from droveway.ports.clock import Clock
from droveway.store.engine.transaction import Tx
from droveway.store.work import sagas


class Changes:
    """The runner's, so that a mutant may differ in one of them."""

    _clock: Clock

    def _mark(self, run: Run, step: str, mark: str, text: str = "") -> dict[str, Any]:
        took_ms = round((self._clock.monotonic_s() - run.began_s) * 1000, 1)
        return {"step": step, "mark": mark, "ms": took_ms} | ({"text": text} if text else {})

    def _advance(self, tx: Tx, run: Run, marks: list[dict[str, Any]], merge: bool) -> tuple[int, SagaStatus]:
        steps, position = run.story.steps, run.position
        if position < len(steps) and steps[position].do is not None:
            position += 1
            most = len(steps) if merge else 0
        else:
            most = len(steps) if merge else 1
        while position < len(steps):
            step = steps[position]
            if most > 0 and step.write is not None:
                step.write(tx, run.context)
                marks.append(self._mark(run, step.name, "+"))
                most -= 1
            elif step.do is None or step.needed is None or step.needed(run.context.notes):
                break
            position += 1
        return (position, SagaStatus.FORWARD) if position < len(steps) else (position, SagaStatus.DONE)

    def _fail(self, tx: Tx, run: Run, marks: list[dict[str, Any]], merge: bool) -> tuple[int, SagaStatus]:
        run.story.failed(tx, run.context)
        return self._unwind(tx, run, marks, run.position)

    def _retreat(self, tx: Tx, run: Run, marks: list[dict[str, Any]], merge: bool) -> tuple[int, SagaStatus]:
        step = run.step
        if step.unwrite is not None:
            step.unwrite(tx, run.context)
            marks.append(self._mark(run, step.name, "-"))
        return self._unwind(tx, run, marks, run.position - 1)

    def _pass_over(self, tx: Tx, run: Run, marks: list[dict[str, Any]], merge: bool) -> tuple[int, SagaStatus]:
        """Nothing was done at the step to undo: it is not undone, and what stands before it is."""
        return self._unwind(tx, run, marks, run.position)

    def _unwind(self, tx: Tx, run: Run, marks: list[dict[str, Any]], position: int) -> tuple[int, SagaStatus]:
        """Undo, in this transaction, everything down to the next step that has to ask a host."""
        steps, notes = run.story.steps, run.context.notes
        while position >= 0 and not (steps[position].undo and steps[position].may_have_done(notes)):
            unwrite = steps[position].unwrite
            if unwrite is not None and steps[position].may_have_done(notes):
                unwrite(tx, run.context)
                marks.append(self._mark(run, steps[position].name, "-"))
            position -= 1
        if position >= 0:
            return position, SagaStatus.BACKWARD
        run.story.undone(tx, run.context)
        return position, SagaStatus.UNDONE

    def _turn_forward(self, tx: Tx, run: Run, marks: list[dict[str, Any]], merge: bool) -> tuple[int, SagaStatus]:
        sagas.forget_cancel(tx, run.id)
        run.context.error = ""
        return run.story.pivot, SagaStatus.FORWARD

    def _stand(self, tx: Tx, run: Run, marks: list[dict[str, Any]], merge: bool) -> tuple[int, SagaStatus]:
        return run.position, run.status

    def _record_wait(self, tx: Tx, run: Run, marks: list[dict[str, Any]], merge: bool) -> tuple[int, SagaStatus]:
        """It stands, and an event tells its user the reason."""
        if run.story.blocked is not None:
            run.story.blocked(tx, run.context)
        return run.position, run.status

    def _stop_broken(self, tx: Tx, run: Run, marks: list[dict[str, Any]], merge: bool) -> tuple[int, SagaStatus]:
        run.story.failed(tx, run.context)
        sagas.remember_direction(tx, run.id, run.status)
        return run.position, SagaStatus.BROKEN

    def _write(self, tx: Tx, run: Run, **new: Any) -> sagas.Saved:
        """The compare-and-swap of the row."""
        return sagas.save(tx, run, **new)

"""
What a ``state.apply`` said.
"""

import dataclasses
from typing import Any


@dataclasses.dataclass
class StateResult:
    """One state of a run."""

    id: str
    name: str
    function: str
    result: bool | None
    changes: dict[str, Any]
    comment: str
    order: int
    duration: float

    def __str__(self) -> str:
        return f"[{self.result}] {self.id} ({self.function}): {self.comment} {self.changes or ''}"


class StateRun:
    """
    A run of states: ``ok``, ``failed``, ``changed``, ``by_id``, ``results``, ``errors``.

    raw
        what ``state.apply`` returned: a dictionary of states, or a list of errors when it could
        not even be rendered
    stderr
        what Salt logged meanwhile
    """

    def __init__(self, raw: Any, stderr: str = "") -> None:
        self.raw = raw
        self.stderr = stderr
        self.errors: list[str] = []
        self.results: list[StateResult] = []
        if isinstance(raw, dict):
            for tag, state in raw.items():
                module, identity, name, function = tag.split("_|-")
                self.results.append(
                    StateResult(
                        # Of a state that another one ran the tag alone tells the truth.
                        id=identity,
                        name=name,
                        function=f"{module}.{function}",
                        result=state.get("result"),
                        changes=state.get("changes") or {},
                        comment=str(state.get("comment", "")),
                        order=state.get("__run_num__", 0),
                        duration=state.get("duration", 0.0),
                    )
                )
            self.results.sort(key=lambda state: state.order)
        else:
            self.errors = [str(line) for line in (raw if isinstance(raw, list) else [raw])]

    @property
    def ok(self) -> bool:
        """Whether it was rendered and no state failed (a None of a dry run is no failure)."""
        return not self.errors and not self.failed and bool(self.results)

    @property
    def failed(self) -> list[StateResult]:
        """The states whose result is False."""
        return [state for state in self.results if state.result is False]

    @property
    def changed(self) -> list[StateResult]:
        """The states that changed something, or would."""
        return [state for state in self.results if state.changes]

    @property
    def by_id(self) -> dict[str, StateResult]:
        """The states by their ID (the last one where several functions share an ID)."""
        return {state.id: state for state in self.results}

    def __repr__(self) -> str:
        """What pytest shows when an assertion on the run fails: errors first."""
        lines = [*self.errors, *map(str, self.failed or self.results)]
        if not self.ok and self.stderr:
            lines.append(self.stderr[-3000:])
        return "\n".join(["StateRun:", *lines])

"""What a cell said while it trained, as one text: its journal in short, its output, its last traceback."""

from harness.store.cells import Cells
from harness.trainers.run import OUTPUTS


def said(cells: Cells, key: str, *, most_characters: int | None = None) -> str:
    """The text, a line an event, as it stands in the files: whoever shows it makes it safe to show.

    Args:
        most_characters: of each output, from its end; all of it by default.

    Raises:
        StoreError: the journal or the result cannot be read.
    """
    events, result = cells.events(key), cells.result(key)
    state = f"{result.status}{f': {result.reason}' if result.reason else ''}" if result else "has not ended"
    lines = [f"cell {key}: {state}"]
    lines += [f"{it['time']}  {it['event']}{_detail(it)}" for it in events if it["event"] != "validation"]
    for name in OUTPUTS:
        path = cells.folder(key) / name
        if path.is_file() and path.stat().st_size:
            text = path.read_text(errors="replace").rstrip()
            left_out = max(len(text) - most_characters, 0) if most_characters else 0
            lines += ["", f"== {name}", *([f"[{left_out:,} characters before]"] if left_out else []), text[left_out:]]
    traces = [it["traceback"].rstrip() for it in events if it.get("traceback")]
    if traces and traces[-1] not in "\n".join(lines):
        lines += ["", "== traceback of the last failure", traces[-1]]
    return "\n".join(lines)


def _detail(event: dict[str, object]) -> str:
    """In one line: what more lines say stands above, or in the output."""
    told = {name: str(event[name]) for name in ("step", "status", "reason", "signal") if event.get(name)}
    parts = [f"{name} {text.splitlines()[0]}" for name, text in told.items()]
    return f"  {', '.join(parts)}" if parts else ""

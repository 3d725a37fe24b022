"""What a cell said while it trained, as one text: its journal in short, its output, its last traceback."""

from pathlib import Path

from harness.store.cells import Cells
from harness.trainers.run import OUTPUTS


def said(cells: Cells, key: str, *, most_characters: int | None = None) -> str:
    """The text, a line an event, as it stands in the files: whoever shows it makes it safe to show.

    Args:
        most_characters: of each output, from its end; all of it by default.

    Raises:
        StoreError: the journal or the result cannot be read.
    """
    events, result, outputs = cells.events(key), cells.result(key), _outputs(cells.folder(key))
    errors = outputs.get(OUTPUTS[1], "")
    state = result.status if result else "has not ended"
    lines = [f"cell {key}: {state}{f': {_in_short(result.reason, errors)}' if result and result.reason else ''}"]
    lines += [f"{it['time']}  {it['event']}{_detail(it, errors)}" for it in events if it["event"] != "validation"]
    for name, text in outputs.items():
        left_out = max(len(text) - most_characters, 0) if most_characters else 0
        lines += ["", f"== {name}", *([f"[{left_out:,} characters before]"] if left_out else []), text[left_out:]]
    traces = [it["traceback"].rstrip() for it in events if it.get("traceback")]
    if traces and traces[-1] not in "\n".join(lines):
        lines += ["", "== traceback of the last failure", traces[-1]]
    return "\n".join(lines)


def _outputs(folder: Path) -> dict[str, str]:
    """What was printed, by the name of its file; nothing of what is empty."""
    paths = (folder / name for name in OUTPUTS)
    return {it.name: it.read_text(errors="replace").rstrip() for it in paths if it.is_file() and it.stat().st_size}


def _detail(event: dict[str, object], errors: str) -> str:
    """In one line: what more lines say stands above, or in the output."""
    told = {name: str(event[name]) for name in ("step", "status", "reason", "signal") if event.get(name)}
    parts = [f"{name} {_in_short(text, errors).splitlines()[0]}" for name, text in told.items()]
    return f"  {', '.join(parts)}" if parts else ""


def _in_short(reason: str, errors: str) -> str:
    """A reason that quotes several lines of the output for errors, with the last of them alone; others as they are.

    >>> _in_short("exit code 1: Traceback:\\n  line 3\\nKeyError: 'x'", "Traceback:\\n  line 3\\nKeyError: 'x'")
    "exit code 1: KeyError: 'x'"
    """
    first, *more = reason.splitlines()
    before, found, _ = errors.rpartition("\n" + "\n".join(more))
    quoted = before.rpartition("\n")[2]
    return first.removesuffix(quoted) + more[-1] if more and found and first.endswith(quoted) else reason

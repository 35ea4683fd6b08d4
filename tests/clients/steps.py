"""What a script of a client prints: one line of JSON for each step. It is run by the client's own environment."""

import json
import time


def step(name, work, *arguments):
    """What `work` gives; None when it fails."""
    try:
        found = work(*arguments)
    except Exception as error:  # noqa: BLE001 - whatever a client raises is what it says
        said = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        print(json.dumps({"step": name, "ok": False, "said": said}), flush=True)
        return None
    print(json.dumps({"step": name, "ok": True}), flush=True)
    return found


def until(ask, seconds=60.0):
    end = time.monotonic() + seconds
    while not ask():
        if time.monotonic() > end:
            raise TimeoutError("it did not come about")
        time.sleep(0.2)


def check(is_so, what="it is not so"):
    if not is_so:
        raise ValueError(what)

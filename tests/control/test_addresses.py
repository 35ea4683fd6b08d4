"""Two hosts are never at one address; the report of the first stays accepted."""

from __future__ import annotations

from droveway.control.liveness.addresses import Addresses

H1, H2 = "qemu+tls://10.0.0.1/system", "qemu+tls://10.0.0.2/system"


def everybody(host: str) -> bool:
    return host in {"h1", "h2", "h3"}


def test_an_address_is_one_hosts() -> None:
    known = Addresses()
    known.learn({"h1": H1, "h2": H2, "old": "qemu+ext://x/system?command=y"})
    assert known.taken("h1", H1, everybody) is None
    assert "names the address of host h1" in str(known.taken("h2", H1, everybody))
    assert "names the address of host h1" in str(known.taken("h2", "qemu+tls://h1/system", everybody))
    assert "names the address of host h1" in str(known.taken("h2", "qemu+tls://10.0.0.1:16514/system", everybody))
    assert known.taken("h1", "qemu+tls://h1/system", everybody) is None
    assert known.taken("h3", "qemu+tls://10.0.0.1:16515/system", everybody) is None  # another port is another place


def test_a_renamed_host_is_at_its_old_address_and_the_older_one_is_accepted_when_it_returns() -> None:
    known = Addresses()
    known.put("h1", H1)
    assert known.taken("h2", H1, lambda _: False) is None
    known.put("h2", H1)
    assert known.taken("h1", H1, everybody) is None
    assert known.taken("h2", H1, everybody) is not None
    known.forget("h1")
    assert known.taken("h2", H1, everybody) is None
    known.put("h2", H2)
    assert known.taken("h3", H1, everybody) is None

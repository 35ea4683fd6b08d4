"""Addresses as numbers: which is free, found without looking at each, and what no address is."""

from __future__ import annotations

import ipaddress
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from droveway.domain.network import addresses
from droveway.domain.network.addresses import WINDOW, digits_of, first_gap, next_free, number_of, usable, without
from droveway.domain.network.refusals import InvalidInput


class Taken:
    """What is taken, and how often and how much somebody asked."""

    def __init__(self, numbers: set[int]) -> None:
        self.numbers, self.counts, self.read = sorted(numbers), 0, 0

    def count(self, first: int, last: int) -> int:
        self.counts += 1
        return sum(first <= number <= last for number in self.numbers)

    def which(self, first: int, last: int) -> list[int]:
        found = [number for number in self.numbers if first <= number <= last]
        self.read += len(found)
        return found

    def free(self, pool: tuple[int, int]) -> int | None:
        inside = [number for number in self.numbers if pool[0] <= number <= pool[1]]
        return next_free(pool, inside[-1] if inside else None, self.count, self.which)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 700), st.sets(st.integers(0, 1800), max_size=900))
def test_what_is_chosen_is_free_and_none_is_overlooked(first: int, size: int, numbers: set[int]) -> None:
    pool, taken = (first, first + size), Taken(numbers)
    found = taken.free(pool)
    inside = set(range(first, first + size + 1))
    if inside <= numbers:
        assert found is None
    else:
        assert found in inside - numbers


def test_the_one_behind_the_highest_comes_first_and_the_lowest_gap_last() -> None:
    assert Taken(set()).free((10, 20)) == 10
    assert Taken({5, 25}).free((10, 20)) == 10
    assert Taken({10, 12}).free((10, 20)) == 13
    assert Taken({10, 20}).free((10, 20)) == 11
    assert Taken(set(range(10, 21))).free((10, 20)) is None


def test_the_last_free_one_of_65000_is_found_without_reading_them() -> None:
    everything = set(range(1, 65_535))
    for hole in random.Random(7).sample(sorted(everything), 5):
        taken = Taken(everything - {hole})
        assert taken.free((1, 65_534)) == hole
        assert taken.read <= WINDOW and taken.counts <= 18


def test_a_range_of_2_to_the_64_is_no_different() -> None:
    first, last = usable(ipaddress.ip_network("2001:db8::/64"))
    taken = Taken({first, first + 1, last})
    assert (taken.free((first, last)), taken.counts <= 66) == (first + 2, True)


def test_gaps_and_digits() -> None:
    assert [first_gap((3, 6), taken) for taken in ([], [3, 4], [3, 4, 5, 6], [5])] == [3, 5, None, 3]
    numbers = [0, 9, 10, 255, 256, 2**32 - 1, 2**128 - 1]
    assert sorted(map(digits_of, numbers)) == list(map(digits_of, numbers))
    assert [number_of(digits_of(number)) for number in numbers] == numbers


@pytest.mark.parametrize(
    ("cidr", "first", "last"),
    [
        ("10.0.0.0/24", "10.0.0.1", "10.0.0.254"),
        ("10.0.0.0/30", "10.0.0.1", "10.0.0.2"),
        ("10.0.0.0/31", "10.0.0.0", "10.0.0.1"),
        ("10.0.0.7/32", "10.0.0.7", "10.0.0.7"),
        ("2001:db8::/127", "2001:db8::", "2001:db8::1"),
        ("2001:db8::/64", "2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"),
    ],
)
def test_what_a_port_may_have(cidr: str, first: str, last: str) -> None:
    found = usable(ipaddress.ip_network(cidr))
    assert found == (int(ipaddress.ip_address(first)), int(ipaddress.ip_address(last)))


def test_a_hole_parts_an_interval() -> None:
    assert without((1, 9), 4) == [(1, 3), (5, 9)]
    assert without((1, 9), 1) == [(2, 9)]
    assert without((4, 4), 4) == []
    assert without((1, 9), 11) == [(1, 9)] == without((1, 9), None)


def test_a_guest_makes_its_address_of_its_mac() -> None:
    """The example of RFC 4291, appendix A: 34-56-78-9A-BC-DE becomes 36-56-78-FF-FE-9A-BC-DE."""
    found = addresses.eui64("2001:db8::/64", "34:56:78:9a:bc:de")
    assert addresses.text_of(found, 6) == "2001:db8::3656:78ff:fe9a:bcde"


def test_a_mac_is_that_of_one_device() -> None:
    assert addresses.mac("m", "FA-16-3E-00-00-0A") == "fa:16:3e:00:00:0a"
    assert addresses.mac_of("01234567-89ab-cdef-0123-456789abcdef") == "fa:16:3e:ab:cd:ef"
    for wrong in (
        "",
        "fa:16:3e",
        "01:00:5e:00:00:01",
        "ff:ff:ff:ff:ff:ff",
        "00:00:00:00:00:00",
        "fa:16:3e:00:00:0g",
        7,
    ):
        with pytest.raises(InvalidInput, match="is not a valid MAC address"):
            addresses.mac("m", wrong)


@pytest.mark.parametrize("wrong", ["", "10.0.0", "10.0.0.256", "fe80::1%eth0", "10.0.0.1\n", 7, None, "::g"])
def test_what_is_no_address(wrong: object) -> None:
    with pytest.raises(InvalidInput, match="is not a valid IP address"):
        addresses.address("a", wrong)
    with pytest.raises(InvalidInput, match="is not a valid IP subnet"):
        addresses.network("a", wrong)

"""Pages: each says where the next one begins, and the last one that it is the last."""

from __future__ import annotations

import pytest

from herder.domain.paging import MAX_HTTP_PAGE, MAX_PAGE, Page, page_of, require_limit
from herder.errors import InvalidRequest


@pytest.mark.parametrize("count", range(8))
@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_every_item_is_on_one_page_and_no_page_is_empty(count, limit):
    rows, pages, after = list(range(count)), [], -1
    while True:
        found = [row for row in rows if row > after][: limit + 1]
        page = page_of(found, limit, lambda row: row)
        pages.append(page.items)
        if page.next is None:
            break
        after = page.next
    assert [row for page in pages for row in page] == rows
    assert all(pages) or rows == []
    assert max(map(len, pages)) <= limit


def test_a_full_last_page_is_the_last():
    assert page_of(["a", "b"], 2, str) == Page(["a", "b"], None)
    assert page_of(["a", "b", "c"], 2, str) == Page(["a", "b"], "b")


@pytest.mark.parametrize("limit", [0, -1, 101, True, "5", 2.0, None])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(InvalidRequest, match="limit must be 1 to 100"):
        require_limit(limit, MAX_HTTP_PAGE)


def test_a_limit_within_its_range_is_taken():
    for limit, most in ((1, MAX_HTTP_PAGE), (100, MAX_HTTP_PAGE), (1000, MAX_PAGE)):
        require_limit(limit, most)
    with pytest.raises(InvalidRequest, match="1 to 1000"):
        require_limit(1001)

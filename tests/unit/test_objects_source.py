"""What needs no server: options, what describes objects, plans, and hostile trees."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from holdfast.errors import AccessRefused, TreeUnsafe, UsageInvalid
from holdfast.model.artifact import Entry, EntryKind, Tree, TreeItems
from holdfast.s3.credentials import credentials_of
from holdfast.s3.xml import Listed, deletion, page_of, problem_in, writable
from holdfast.sources._objects_ahead import Work, ahead
from holdfast.sources._objects_entry import HEADERS, Attributes, Described
from holdfast.sources._objects_plan import Plan, State
from holdfast.sources.objects import ObjectsOptions, ObjectsSource

NAMES = st.text(st.sampled_from("abcz-_09"), min_size=1, max_size=10)
LINES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=30)


def source(**options: object) -> ObjectsSource:
    return ObjectsSource("attachments", ObjectsOptions.model_validate(options))


# --- options ---


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"url": "https://bucket"},
        {"url": "s3://"},
        {"url": "s3://user:pw@bucket"},
        {"url": "s3://b", "endpoint": "localhost:9000"},
        {"url": "s3://bucket", "endpoint": "http://user:pw@localhost"},
        {"url": "s3://bucket", "access_key": "only one"},
        {"url": "s3://bucket", "concurrency": 0},
        {"url": "s3://bucket", "unknown": 1},
        {"url": "s3://bucket", "aside": "https://other"},
        {"url": "s3://bucket", "aside": "s3://user:pw@other"},
        {"folder": "objects", "aside": "s3://other"},
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as caught:
        ObjectsOptions.model_validate(options)
    assert "pw" not in str(caught.value)


def test_where_it_is_never_shows_who_asks() -> None:
    subject = source(
        url="s3://bucket/prefix",
        endpoint="http://localhost:9000",
        access_key="WHO",
        secret_key="SECRET",
        session_token="TOKEN",
    )
    assert subject.where == "s3://bucket/prefix at localhost:9000"
    shown = f"{subject.options!r} {subject.elsewhere('s3://other').where}"
    assert not any(secret in shown for secret in ("WHO", "SECRET", "TOKEN"))


def test_another_place_keeps_the_other_options(tmp_path: Path) -> None:
    subject = source(
        url="s3://bucket",
        endpoint="http://h",
        access_key="a",
        secret_key="b",
        aside="s3://spare",
    )
    other = subject.elsewhere("s3://other/part")
    assert other.options.aside == "s3://spare"
    assert other.where == "s3://other/part at h"
    assert other.options.secret_key == "b"
    assert subject.elsewhere(str(tmp_path)).where == str(tmp_path)
    for url in ("s3://", "http://h/bucket"):
        with pytest.raises(UsageInvalid):
            subject.elsewhere(url)


def test_credentials_are_found_where_amazons_tools_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "FOUND")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET")
    found = credentials_of("c", "w", "", "", "")()
    assert (found.access_key, found.secret_key) == ("FOUND", "SECRET")


def test_no_credentials_at_all_are_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(AccessRefused, match="none was found"):
        credentials_of("c", "w", "", "", "")()


# --- what describes objects ---


@given(
    kept=st.dictionaries(st.sampled_from(HEADERS), LINES.filter(bool)),
    metadata=st.dictionaries(NAMES, LINES),
    tags=st.dictionaries(LINES, LINES),
    size=st.integers(0, 1 << 40),
    part_size=st.integers(0, 1 << 30),
)
def test_what_describes_an_object_survives_as_attributes_of_a_file(
    kept: dict[str, str], metadata: dict[str, str], tags: dict[str, str], size: int, part_size: int
) -> None:
    described = Described(size, '"abc"', 5, Attributes(kept, metadata, tags), part_size, "v1")
    assert Described.from_entry(described.entry("path"), "c") == described


@pytest.mark.parametrize(
    "xattrs",
    [
        {"user.s3.content-type": b"text/plain\r\nx-evil: 1"},
        {"user.s3.metadata": b'{"a\\r\\nb": "c"}'},
        {"user.s3.metadata": b'{"a": "b\\r\\nc"}'},
        {"user.s3.metadata": b'["a"]'},
        {"user.s3.metadata": b"{"},
        {"user.s3.tags": b'{"a": 1}'},
        {"user.s3.part-size": b"many"},
    ],
)
def test_attributes_that_no_object_has_are_refused(xattrs: dict[str, bytes]) -> None:
    with pytest.raises(TreeUnsafe):
        Described.from_entry(Entry("a", EntryKind.FILE, xattrs=xattrs), "c")


@pytest.mark.parametrize(
    ("entry", "content", "problem"),
    [
        (Entry("a", EntryKind.SYMLINK, target="b"), b"", "it is a symlink"),
        (Entry("a", EntryKind.FILE, size=5), b"four", "4 bytes of data instead of 5"),
        (Entry("%zz", EntryKind.FILE), b"", "no object has this path"),
        (Entry("a", EntryKind.FILE, xattrs={"user.s3.tags": b"{"}), b"", "not those of an object"),
    ],
)
def test_a_tree_that_holds_no_objects_does_not_pass(
    entry: Entry, content: bytes, problem: str, tmp_path: Path
) -> None:
    @contextmanager
    def opened() -> Iterator[TreeItems]:
        yield iter([(Entry(".", EntryKind.FOLDER), iter(())), (entry, iter([content]))])

    inspection = source(url="s3://bucket").inspect([Tree("t", opened)], tmp_path)
    assert any(problem in line for line in inspection.problems)


# --- plans ---


def test_a_plan_survives_its_process(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "er"
    with Plan.begin(folder, {"state": State.FILLING, "made": "yes"}) as plan:
        assert plan.want("key\udcff\n", 5) == 1
        assert plan.want("key\udcff\n", 6) is None
        plan.state = State.FILLED
    with Plan(folder) as plan:
        assert (plan.state, plan.fact("made")) == (State.FILLED, "yes")
        assert list(plan.keys()) == ["key\udcff\n"]
    assert not Plan.exists(tmp_path)
    with Plan.begin(folder, {"state": State.FILLING}) as plan:
        assert list(plan.keys()) == []


def test_changes_to_a_plan_are_made_together_or_not_at_all(tmp_path: Path) -> None:
    with Plan.begin(tmp_path, {"state": State.FILLING}) as plan:
        with suppress(KeyError), plan.changing():
            plan.want("one", 1)
            raise KeyError
        assert plan.counts()["objects"] == 0


def test_what_is_put_back_is_what_differs(tmp_path: Path) -> None:
    def there(**etags: str) -> list[Listed]:
        return [Listed(key, 1, etag, "then") for key, etag in etags.items()]

    with Plan.begin(tmp_path, {"state": State.FILLING}) as plan:
        for key in ("same", "dressed", "changed", "untouched", "added"):
            number = plan.want(key, 1)
            assert number is not None
            if key != "same":
                plan.staged("wanted", number, dressed=key == "dressed")
        plan.write_list("filled", there(same="s"))
        before = {"same": "s", "dressed": "d", "changed": "c", "untouched": "u", "extra": "e"}
        plan.write_list("before", there(**before))
        plan.write_list("now", there(same="s", dressed="d", changed="x", untouched="u", added="a"))
        assert plan.disturbed() is None
        put_back = {step.key for step in plan.to_put_back(remove_extra=True)}
        assert put_back == {"dressed", "changed", "extra"}
        assert list(plan.to_take_away()) == ["added"]
        kept = {step.key for step in plan.to_put_back(remove_extra=False)}
        assert kept == {"dressed", "changed"}
        plan.write_list("before", there(**{**before, "same": "another"}))
        assert plan.disturbed() == "same"


# --- small things ---


def test_results_come_in_order_and_only_so_much_is_held_ahead() -> None:
    running = 0
    most = 0
    lock = threading.Lock()

    def work(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        return number

    works = (Work(partial(work, number), 1 << 20) for number in range(50))
    found = []
    with ThreadPoolExecutor(8) as threads:
        for future in ahead(threads, works, 4 << 20):
            found.append(future.result())
            with lock:
                running -= 1
    assert found == list(range(50))
    assert most <= 5


def test_errors_in_documents_are_read_and_others_are_not() -> None:
    error = b"<Error><Code>SlowDown</Code><Message>wait</Message><Region>r</Region></Error>"
    assert problem_in(error) == ("SlowDown", "wait", "r")
    assert problem_in(b"<Errors/>") == ("", "", "")
    assert problem_in(b"<Error") == ("", "", "")


def test_keys_in_lists_are_decoded_only_where_they_are_encoded() -> None:
    entry = b"<Contents><Key>a+b%2Bc%0A</Key><Size>1</Size></Contents></ListBucketResult>"
    plain = page_of(b"<ListBucketResult>" + entry)
    assert plain.items[0].key == "a+b%2Bc%0A"
    encoded = page_of(b"<ListBucketResult><EncodingType>url</EncodingType>" + entry)
    assert encoded.items[0].key == "a b+c\n"


def test_keys_that_xml_cannot_say_are_deleted_by_themselves() -> None:
    assert writable("a\nb")
    assert not writable("a\x01b")
    assert not writable("\udcff")
    assert b"a&#10;b&amp;" in deletion([("a\nb&", "")])


def test_headers_of_an_object() -> None:
    attributes = Attributes({"content-type": "a/b"}, {"who": "me"}, {"k l": "v&w"})
    assert attributes.headers() == {
        "content-type": "a/b",
        "x-amz-meta-who": "me",
        "x-amz-tagging": "k%20l=v%26w",
    }
    assert json.loads(json.dumps(Attributes.of(attributes.headers(), {}).metadata)) == {"who": "me"}


def test_the_page_on_the_format_names_every_attribute() -> None:
    attributes = Attributes(dict.fromkeys(HEADERS, "x"), {"a": "b"}, {"c": "d"})
    entry = Described(1, '"e"', 0, attributes, 5, "v", deleted=True).entry("path")
    page = (Path(__file__).parents[2] / "docs" / "formats" / "objects.md").read_text()
    rows = re.findall(r"^\| `(user\.s3\.[a-z-]+)` \|", page, flags=re.MULTILINE)
    assert sorted(rows) == sorted(entry.xattrs)
